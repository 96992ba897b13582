"""Likelihoods of token sequences under a language model."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from slm.vocabulary import Vocabulary

_BATCH_TOKENS = 8_192  # padded tokens that are read at once
_LOGITS_AT_ONCE = 1 << 26  # float32 numbers, 256 MiB


@torch.inference_mode()
def token_log_probabilities(
    model: PreTrainedModel,
    sequences: Sequence[np.ndarray],
    pad_id: int,
    on_progress: Callable[[int], object] | None = None,
) -> list[np.ndarray]:
    """log p of every token but the first given all before it, in nats, (tokens - 1,) float64 for each sequence.

    sequences: token ids, (tokens,) each, at least one token, no more than the model reads. They are read in batches of
    about the same length, padded at their ends, which changes nothing before the padding. Probabilities are over the
    whole vocabulary, as in training. `on_progress` is called with the number of sequences just read.
    """
    head = model.get_output_embeddings()
    chunk = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)  # tokens
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]), reverse=True)
    results: dict[int, np.ndarray] = {}
    while order:
        width = len(sequences[order[0]])
        rows, order = order[: max(1, _BATCH_TOKENS // width)], order[max(1, _BATCH_TOKENS // width) :]
        lengths = [len(sequences[row]) for row in rows]
        batch = np.stack(
            [
                np.pad(sequences[row].astype(np.int64), (0, width - length), constant_values=pad_id)
                for row, length in zip(rows, lengths, strict=True)
            ]
        )
        read = torch.from_numpy(batch).to(model.device)
        hidden = model.base_model(input_ids=read, use_cache=False).last_hidden_state  # (rows, width, dim)
        there = torch.arange(width - 1)[None] < torch.tensor(lengths)[:, None] - 1  # (rows, width - 1)
        there = there.to(model.device)
        states, targets = hidden[:, :-1][there], read[:, 1:][there]  # (tokens, dim), (tokens,)
        told = [np.zeros(0)]
        for start in range(0, len(targets), chunk):
            logits = head(states[start : start + chunk]).float()
            chosen = logits.gather(1, targets[start : start + chunk, None])[:, 0]
            told.append((chosen - logits.logsumexp(1)).cpu().double().numpy())
        cuts = np.cumsum([length - 1 for length in lengths])[:-1]
        for row, nats in zip(rows, np.split(np.concatenate(told), cuts), strict=True):
            results[row] = nats
        if on_progress is not None:
            on_progress(len(rows))
    return [results[number] for number in range(len(sequences))]


def text_log_probability(
    model: PreTrainedModel, vocabulary: Vocabulary, speech_ids: Sequence[np.ndarray], text: str
) -> list[float]:
    """log p(text, end | speech) of each utterance, by the model's own `asr` documents, nats per token.

    speech_ids: token ids, (tokens,) int32 each.
    """
    said = [vocabulary.text_id, *vocabulary.encode_text(text).tolist(), vocabulary.eos_id]
    documents = [np.array([vocabulary.speech_id, *ids.tolist(), *said]) for ids in speech_ids]
    told = token_log_probabilities(model, documents, vocabulary.pad_id)
    return [float(nats[1 - len(said) :].mean()) for nats in told]


def likeliest_voice(model: PreTrainedModel, vocabulary: Vocabulary, speech_ids: np.ndarray) -> str | None:
    """The one of the model's voices in which it expects a recording most; None for a model without voices.

    speech_ids: token ids, (tokens,), which with two more the model can read.
    """
    if not vocabulary.voices:
        return None
    names, tags = zip(*vocabulary.voices.items(), strict=True)
    documents = [np.array([tag, vocabulary.speech_id, *speech_ids.tolist()]) for tag in tags]
    told = token_log_probabilities(model, documents, vocabulary.pad_id)
    return names[int(np.argmax([nats[1:].sum() for nats in told]))]
