"""How likely a text language model finds transcripts: whether what was said makes sense, word after word."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from codec.foundation import UserError, first_line
from codec.foundation.quiet import quiet_transformers
from codec.metrics import Interval, bootstrap_ratio


@dataclass(frozen=True)
class TextLikelihood:
    """A text as the model sees it."""

    nats: float  # -log p(text), every scored token counting
    tokens: int  # scored
    characters: int


class TextLM:
    """Any causal language model of Hugging Face.

    Args:
        name: hub id or directory.

    Raises UserError for what is no such model.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        self.name = name
        self.device = torch.device(device)
        try:
            with quiet_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
                model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"cannot load the text language model {name}: {reason} (give the hub id or directory of a Hugging "
                "Face causal language model)"
            ) from error
        if self.device.type == "cpu":
            model = model.float()  # half precision is slow there
        self._model: Any = model.eval().to(self.device)
        # What stands before a text: its own mark of a beginning, or, as GPT-2 was trained, that of an end.
        begin = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        self._begin: int | None = next((token for token in begin if token is not None), None)
        self._longest = int(getattr(self._model.config, "max_position_embeddings", 0) or 1_024)

    @torch.inference_mode()
    def likelihood(self, text: str) -> TextLikelihood:
        """Of a text by itself; of one that is longer than the model reads, piece after piece.

        Without a token to begin with, the first of a text is given and not scored.
        """
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        begin = [] if self._begin is None else [self._begin]
        room = self._longest - len(begin)
        nats, tokens = 0.0, 0
        for start in range(0, len(ids), room):
            piece = torch.tensor([begin + ids[start : start + room]], device=self.device)
            if piece.shape[1] < 2:
                continue
            logits = self._model(input_ids=piece, use_cache=False).logits[0, :-1].float()
            told = logits.log_softmax(-1).gather(1, piece[0, 1:, None])
            nats -= float(told.double().sum())
            tokens += len(told)
        return TextLikelihood(nats, tokens, len(text))


def perplexity(likelihoods: Sequence[Sequence[TextLikelihood]]) -> Interval:
    """exp of the nats a token over all texts, with its bootstrap interval over groups of texts that hang together.

    NaN without a token.
    """
    nats = np.array([sum(text.nats for text in group) for group in likelihoods])
    tokens = np.array([sum(text.tokens for text in group) for group in likelihoods])
    rate = bootstrap_ratio(nats, tokens)
    # Student's interval over very few texts may be wider than what can be written down
    high = inf if rate.high > 700.0 else exp(rate.high)
    return Interval(exp(rate.value), exp(rate.low), high, rate.level)
