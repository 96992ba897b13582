"""Error rates against a slow Levenshtein, normalisation by example, recognisers on what is there offline."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.foundation.errors import UserError
from codec.metrics import (
    EditCounts,
    TransformersRecognizer,
    character_errors,
    normalize_transcript,
    open_recognizer,
    word_errors,
)

jiwer = pytest.importorskip("jiwer")


def levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Author of the danger trail, Philip Steels, etc.", "author of the danger trail philip steels etc"),
        ("Don’t -- 'quote' the dogs' o'clock!", "don't quote the dogs o'clock"),
        ("Twenty-one  _things_\t42", "twenty one things 42"),
        ("Ein hu\u0308bscher Straßenfußball", "ein hübscher straßenfußball"),
        ("…", ""),
    ],
)
def test_normalisation(written: str, compared: str) -> None:
    assert normalize_transcript(written) == compared
    assert normalize_transcript(compared) == compared


words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "cats"]), max_size=9).map(" ".join)


@settings(max_examples=80)
@given(words, words)
def test_edits_are_the_levenshtein_distance(reference: str, hypothesis: str) -> None:
    by_word, by_character = word_errors(reference, hypothesis), character_errors(reference, hypothesis)
    assert by_word.errors == levenshtein(reference.split(), hypothesis.split())
    assert by_word.length == len(reference.split())
    assert by_character.errors == levenshtein(list(reference), list(hypothesis))
    assert by_character.length == len(reference)


def test_rates_add_up_over_a_corpus() -> None:
    total = word_errors("A b c", "a x c d") + word_errors("e", "e")
    assert total == EditCounts(substitutions=1, deletions=0, insertions=1, length=4)
    assert total.rate == 0.5
    assert word_errors("a", "b c d").rate == 3  # more errors than words
    assert EditCounts().rate != EditCounts().rate  # no reference: not a number


def test_pocketsphinx_hears_silence_and_does_not_remember(bundled_speech: list[torch.Tensor]) -> None:
    pytest.importorskip("pocketsphinx")
    first = open_recognizer("pocketsphinx")
    assert first.transcribe(torch.zeros(0), 24_000) == ""
    forward = [first.transcribe(speech, 24_000) for speech in bundled_speech]
    backward = [first.transcribe(speech, 24_000) for speech in reversed(bundled_speech)]
    fresh = [open_recognizer("pocketsphinx").transcribe(speech, 24_000) for speech in bundled_speech]
    assert forward == backward[::-1] == fresh
    assert all(forward)


@pytest.fixture(scope="module")
def bundled_speech() -> list[torch.Tensor]:
    """Speech of the bundled sample corpus."""
    soundfile = pytest.importorskip("soundfile")
    corpus = Path(__file__).parents[2] / "recipes" / "bundled" / "sample_corpus" / "wavs"
    files = sorted(path for path in corpus.glob("*") if path.suffix in {".flac", ".ogg", ".wav"})[:2]
    if not files:
        pytest.skip("no bundled sample corpus")
    # the first second of each: short, and what is heard in them is uncertain enough to show a memory
    return [torch.from_numpy(soundfile.read(path, frames=24_000, dtype="float32")[0]) for path in files]


@pytest.fixture(scope="module")
def tiny_ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CTC model saved as any Hugging Face ASR model is."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    directory = tmp_path_factory.mktemp("tiny ctc")
    letters = ["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    (directory / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(
        directory / "vocab.json", unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|"
    )
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=len(letters),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(16,) * 3,
            conv_kernel=(10, 8, 8),
            conv_stride=(8, 8, 5),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            pad_token_id=0,
        )
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far from ties
    model.save_pretrained(directory)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(directory)
    return directory


def greedy(directory: Path, samples: torch.Tensor) -> str:
    """CTC by hand: argmax, merge repeats, drop blanks."""
    from transformers import Wav2Vec2ForCTC

    letters = {i: letter for letter, i in json.loads((directory / "vocab.json").read_text()).items()}
    standardised = (samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt()
    with torch.no_grad():
        path = Wav2Vec2ForCTC.from_pretrained(directory).eval()(standardised[None]).logits[0].argmax(-1)
    merged = torch.unique_consecutive(path).tolist()
    return "".join(letters[i] for i in merged if i > 0).replace("|", " ").strip()


def test_a_hugging_face_model_from_a_directory(tiny_ctc: Path) -> None:
    samples = torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    recogniser = open_recognizer(str(tiny_ctc))
    assert isinstance(recogniser, TransformersRecognizer)
    heard = recogniser.transcribe(samples, 16_000)
    assert heard == greedy(tiny_ctc, samples) and heard
    assert recogniser.transcribe(torch.zeros(0), 16_000) == ""
    long = torch.randn(16_000 * 31, generator=torch.Generator().manual_seed(1))
    assert len(recogniser.transcribe(long, 16_000)) > 50 * len(heard) / 31  # all of it, not the first window


def test_a_recogniser_that_is_not_there_is_named(tmp_path: Path, tiny_ctc: Path) -> None:
    with pytest.raises(UserError, match=r"cannot load the speech recogniser .*nothing.*pocketsphinx"):
        open_recognizer(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="takes no language"):
        open_recognizer(str(tiny_ctc), language="german")
