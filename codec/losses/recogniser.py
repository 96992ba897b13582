"""A recogniser in the loop: a small, frozen one hears what the codec says, and it should hear what was said.

An L1 of mels weighs a formant like the noise beside it. The features of a recogniser weigh what tells the sounds of a
language apart ("reconstruct, don't encode", arXiv 2603.05887, with features of a self-supervised model).
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from codec.losses.semantic import load_frozen
from codec.nn.blocks import ConvNeXtBlock, FrameConv, init_layer
from codec.nn.kernels import at_least_float32
from codec.nn.mel import LogMel, MelConfig
from codec.nn.sequences import mask_from_lengths, masked_mean, zero_beyond

_MEAN, _STD = -7.8, 2.3  # of speech's log-mel relative to its level
_DISTRIBUTION_WEIGHT = (
    0.3  # a Kullback-Leibler divergence in nats beside a distance of features of deviation 1
)


class RecogniserConfig(PreTrainedConfig):
    """Sizes of a recogniser, the mel that it hears and the characters that it knows."""

    model_type = "mel-recogniser"

    def __init__(
        self,
        alphabet: str = "",
        dim: int = 160,
        hidden_dim: int = 480,
        blocks: int = 6,
        kernel_size: int = 9,
        mel: dict[str, Any] | None = None,
        **others: Any,
    ):
        super().__init__(**others)
        self.alphabet, self.dim, self.hidden_dim = alphabet, dim, hidden_dim
        self.blocks, self.kernel_size, self.mel = blocks, kernel_size, mel or {}


class MelRecogniser(PreTrainedModel):
    """Log-mel -> the character that is said at each of its frames, by ConvNeXt blocks. Its level does not matter."""

    config_class = RecogniserConfig
    config: RecogniserConfig

    def __init__(self, config: RecogniserConfig):
        super().__init__(config)
        self.mel = LogMel(MelConfig(**config.mel))
        self.embed = FrameConv(self.mel.config.n_mels, config.dim, 7)
        self.norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.dim, config.hidden_dim, 0.3, config.kernel_size)
            for _ in range(config.blocks)
        )
        self.final = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, len(config.alphabet))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        init_layer(module)

    def features(self, mel: Tensor, mask: Tensor) -> list[Tensor]:
        """(batch, frames, n_mels), each row's own frames -> features at a third, two thirds and the end, (…, dim)."""
        power = (2 * mel).exp().sum(dim=2)  # (batch, frames)
        level = ((power * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)).clamp_min(
            1e-20
        ).log() / 2  # (batch,)
        x = self.norm(self.embed((mel - level.detach()[:, None, None] - _MEAN) / _STD, mask))
        kept, depth = [], len(self.blocks)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, mask)
            if number in (max(1, depth // 3), max(1, 2 * depth // 3)):
                kept.append(x)
        return [*kept, self.final(x)]

    def forward(self, waveform: Tensor, length: Tensor, said: Tensor) -> dict[str, Tensor]:
        """Segments (batch, samples), own (batch,) lengths, and what is said in each frame, -1 where that is unknown.

        Returns {"loss": mean cross-entropy, "logits": (batch, frames, characters)}.
        """
        hop = self.mel.config.hop_length
        mel = self.mel(F.pad(waveform, (0, -waveform.shape[1] % hop)))
        mask = mask_from_lengths((length + hop - 1) // hop, mel.shape[1])
        logits = self.head(self.features(mel, mask)[-1])
        frames = min(logits.shape[1], said.shape[1])  # a centred mel has one frame more
        logits, said = logits[:, :frames], said[:, :frames]
        known = said >= 0
        losses = F.cross_entropy(logits.flatten(0, 1), said.flatten(), ignore_index=-1, reduction="sum")
        return {"loss": losses / known.sum().clamp_min(1), "logits": logits}


class RecogniserLoss:
    """How differently a frozen recogniser hears the codec's speech and the recording.

    It is not a module, so that checkpoints do not contain it.
    """

    def __init__(self, directory: str, device: torch.device | str = "cpu"):
        load = partial(MelRecogniser.from_pretrained, directory, local_files_only=True)
        about = f"the recogniser {directory}, made by codec-slm train-recogniser"
        self.model: MelRecogniser = load_frozen(load, about, device)

    @property
    def mel(self) -> LogMel:
        """The spectrogram that it hears."""
        return self.model.mel

    def __call__(
        self, mel: Tensor, target: Tensor, mask: Tensor, total: Tensor | float | None = None
    ) -> Tensor:
        """(batch, mel frames, n_mels) of the codec and of the recording -> scalar.

        The mean distance of three layers' features, each of mean 0 and deviation 1 at a frame, and the divergence of
        the characters' probabilities; summed over the mask's frames, over `total` mel frames.
        """
        with torch.no_grad():
            wanted = self.model.features(zero_beyond(at_least_float32(target), mask), mask)
        heard = self.model.features(zero_beyond(at_least_float32(mel), mask), mask)
        distance = torch.stack(
            [
                (F.layer_norm(a, a.shape[-1:]) - F.layer_norm(b, b.shape[-1:])).abs().mean(dim=-1)
                for a, b in zip(heard, wanted, strict=True)
            ]
        ).mean(dim=0)  # (batch, mel frames)
        says, said = (self.model.head(x[-1]).log_softmax(dim=-1) for x in (heard, wanted))
        divergence = F.kl_div(says, said, reduction="none", log_target=True).sum(dim=-1)
        return masked_mean(distance + _DISTRIBUTION_WEIGHT * divergence, mask, total)
