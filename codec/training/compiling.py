"""torch.compile in training: of the networks, in the updates; validation and calibration run as written.

There is no silent way back: what cannot be compiled raises, and so does a module that is compiled for so many shapes
that torch would give up on it.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from codec.training.adversary import Adversary
from codec.training.step import CodecTrainingStep


def compile_networks(step_module: CodecTrainingStep, adversary: Adversary | None) -> None:
    """Have codec and discriminators compiled when they are first called; their weights keep their names."""
    torch._dynamo.config.suppress_errors = False
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    discriminators = [] if adversary is None else list(adversary.discriminators.values())
    # they share the code of one `forward`: compiled for each, with and without gradients, for one batch and for two
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(discriminators))
    for name in step_module.model.PARTS:
        if name != "quantizer":  # one matrix product, and a choice
            step_module.model.get_submodule(name).compile()
    for discriminator in discriminators:
        discriminator.compile()


def as_written(compiled: bool) -> AbstractContextManager[object]:
    """Within the context nothing is compiled, nor does anything compiled run: for audio of every length."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
