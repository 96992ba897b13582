"""How well a model hears a text in speech: p(text | speech), by its own `asr` documents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from slm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def text_log_probability(
    model: "PreTrainedModel",
    vocabulary: Vocabulary,
    speech_ids: Sequence[np.ndarray],
    text: str,
) -> list[float]:
    """log p(text, end | speech) of each utterance, nats per token.

    speech_ids: token ids, (tokens,) int32 each. Utterances are read together, the shorter ones padded at their
    ends, where it changes nothing for what comes before.
    """
    words = vocabulary.encode_text(text)
    targets = torch.tensor([*words.tolist(), vocabulary.eos_id], device=model.device)
    documents = [
        np.concatenate([[vocabulary.speech_id], ids, [vocabulary.text_id], words]).astype(np.int64)
        for ids in speech_ids
    ]
    longest = max(map(len, documents))
    batch = np.stack(
        [np.pad(ids, (0, longest - len(ids)), constant_values=vocabulary.pad_id) for ids in documents]
    )
    hidden = model.base_model(
        input_ids=torch.from_numpy(batch).to(model.device), use_cache=False
    ).last_hidden_state  # (utterances, longest, dim)
    scores = []
    for row, ids in zip(hidden, documents, strict=True):
        # Each position from <|text|> on predicts the token after it, the last one the end.
        logits = model.get_output_embeddings()(row[len(ids) - len(targets) : len(ids)])
        scores.append(-F.cross_entropy(logits.float(), targets).item())
    return scores
