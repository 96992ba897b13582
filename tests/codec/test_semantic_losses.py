"""What pulls a semantic stream towards the words: against slow, obvious arithmetic, and against `transformers`."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from codec.losses.semantic import (
    CharacterCTC,
    FeatureRegression,
    SSLTeacher,
    Transcripts,
    distillation_centres,
)
from codec.nn.mel import stacked_filterbank
from tests.codec.small_codecs import speech_like


def test_filterbank_is_that_of_w2v_bert() -> None:
    lengths = [16_000, 9_000, 12_345, 720]
    audio = speech_like(4, 16_000)
    for row, length in enumerate(lengths):
        audio[row, length:] = 0.0
    extractor = SeamlessM4TFeatureExtractor()
    expected = extractor(
        [row[:length].numpy() for row, length in zip(audio, lengths, strict=True)],
        sampling_rate=16_000,
        return_tensors="pt",
    )
    features, mask = stacked_filterbank(audio, torch.tensor(lengths))
    assert torch.equal(mask, expected.attention_mask.bool())
    torch.testing.assert_close(features[mask], expected.input_features[mask], atol=1e-4, rtol=1e-4)


def test_w2v_bert_teaches(tmp_path: object) -> None:
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, layerdrop=0.0
    )
    Wav2Vec2BertModel(config).save_pretrained(str(tmp_path))
    teacher = SSLTeacher(str(tmp_path), layer=2)
    audio = torch.zeros(2, 24_000)
    audio[0], audio[1, :12_000] = speech_like(1, 24_000)[0], speech_like(1, 12_000, seed=1)[0]
    centres = distillation_centres(25, 25.0, audio.device)
    features = teacher(audio, torch.tensor([24_000, 12_000]), 24_000, centres)
    assert features.shape == (2, 50, 16)
    # a row's features do not depend on the batch; the last ones lean on what is behind the recording
    alone = teacher(audio[1:, :12_000], torch.tensor([12_000]), 24_000, centres[:25])
    torch.testing.assert_close(features[1, :24], alone[0, :24], atol=1e-4, rtol=1e-3)
    # at the centre of a stacked frame, 280 + 320 n samples at 16 kHz, it is the model's own feature
    audio16 = torch.zeros(1, 16_000)
    audio16[0] = speech_like(1, 16_000)[0]
    own = teacher(
        audio16, torch.tensor([16_000]), 16_000, torch.tensor([(280 + 320 * n) / 16_000 for n in range(5)])
    )
    padded = torch.nn.functional.pad(audio16, (0, 560))
    bands, mask = stacked_filterbank(padded, torch.tensor([16_000]))
    with torch.no_grad():
        states = teacher.model(
            input_features=bands, attention_mask=mask, output_hidden_states=True
        ).hidden_states
    torch.testing.assert_close(own[0], states[2][0, :5], atol=1e-5, rtol=1e-4)


def test_feature_regression() -> None:
    torch.manual_seed(0)
    head = FeatureRegression(6, 4)
    features = torch.randn(2, 10, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3.0
    pooled = (features[:, 0::2] + features[:, 1::2]) / 2
    mask = torch.arange(5) < torch.tensor([5, 3])[:, None]
    head.measure(pooled[mask])
    stream = torch.randn(2, 5, 6)
    squares = 0.0
    for row, frames in enumerate((5, 3)):
        for frame in range(frames):
            wanted = (pooled[row, frame] - pooled[mask].mean(0)) / pooled[mask].std(0)
            squares += float((head.proj(stream[row, frame]) - wanted).detach().square().mean())
    assert float(head(stream, features, mask)) == pytest.approx(squares / 8, rel=1e-5)
    assert float(head(stream, features, mask, 16.0)) == pytest.approx(squares / 16, rel=1e-5)
    direct = FeatureRegression(4, 4)  # of the teacher's width: nothing to learn between
    direct.measure(pooled[mask])
    stream = (pooled - pooled[mask].mean(0)) / pooled[mask].std(0)
    assert not list(direct.parameters()) and float(direct(stream, features, mask)) < 1e-10
    assert float(direct(stream + 2, features, mask)) == pytest.approx(4, rel=1e-5)
    stored = head.state_dict()  # the statistics travel with the run
    assert {"mean", "std"} <= stored.keys() and torch.equal(stored["mean"], pooled[mask].mean(0))


def test_ctc_is_the_sum_over_all_alignments_in_the_span() -> None:
    torch.manual_seed(0)
    head, hop = CharacterCTC(5, characters=2), 100
    stream = torch.randn(3, 6, 5)
    said = Transcripts(
        labels=torch.tensor([[0, 1], [1, 0], [0, 0]]),
        lengths=torch.tensor([2, 1, 0]),
        # frames whose centres lie inside: 1 and 2; 3 to 5; nothing is known of the last row
        spans=torch.tensor([[100, 310], [260, 600], [0, 600]]),
    )
    expected = 0.0
    for row, (first, end, labels) in enumerate([(1, 3, (0, 1)), (3, 6, (1,))]):
        scores = head.proj(stream[row, first:end]).reshape(-1, 3).softmax(-1)  # two steps a frame
        total = 0.0
        for path in product(range(3), repeat=len(scores)):
            collapsed = [c for i, c in enumerate(path) if c != 2 and (i == 0 or path[i - 1] != c)]
            if tuple(collapsed) == labels:
                total += float(np.prod([float(scores[i, c]) for i, c in enumerate(path)]))
        expected -= np.log(total)
    assert float(head(stream, said, hop, 4.0)) == pytest.approx(expected / 4, rel=1e-4)
    unknown = Transcripts(said.labels, torch.zeros(3, dtype=torch.long), said.spans)
    assert float(head(stream, unknown, hop, 4.0)) == 0.0
