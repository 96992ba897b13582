"""Speech with word times from CMU Flite, Debian's small synthesiser, through its C library.

The command `flite` can write audio or print segments, but does not say which written word a segment belongs
to. The library does: an utterance is a set of relations over shared items, and we walk Token -> Word ->
SylStructure (syllables, phones) -> Segment, whose `end` feature is in seconds.
"""

import ctypes
from functools import lru_cache

import numpy as np

from codec.foundation import UserError
from recipes.bundled.speech import Sentence, Speech, TimedWord

VOICES = ("slt", "rms", "awb", "kal16")
"""Voices that speak US English (awb: Scottish) at 16 kHz. The first three are statistical, kal16 is diphones."""

_START_OF_WORD = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
_END_OF_WORD = b"R:SylStructure.daughtern.daughtern.R:Segment.end"
_PHONE_OF_WORD = b"name"


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sampling_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Load libflite with its English parts, and declare the functions that are used."""
    try:
        flite = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for part in ("libflite_cmulex.so.1", "libflite_usenglish.so.1"):
            ctypes.CDLL(part, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UserError(f"Flite's library is not here ({error}): apt-get install libflite1") from error
    pointer, string = ctypes.c_void_p, ctypes.c_char_p
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "flite_init": (ctypes.c_int, []),
        "flite_synth_text": (pointer, [string, pointer]),
        "utt_wave": (ctypes.POINTER(_Wave), [pointer]),
        "utt_relation": (pointer, [pointer, string]),
        "relation_head": (pointer, [pointer]),
        "item_next": (pointer, [pointer]),
        "item_daughter": (pointer, [pointer]),
        "ffeature_string": (string, [pointer, string]),
        "ffeature_float": (ctypes.c_float, [pointer, string]),
        "delete_utterance": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(flite, name)
        function.restype, function.argtypes = result, arguments
    flite.flite_init()
    return flite


@lru_cache(maxsize=1)
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class FliteVoice:
    """One of Flite's voices; deterministic: the same text always gives the same samples."""

    def __init__(self, name: str) -> None:
        """Load the voice `name`, one of `VOICES`; raises `UserError` when Flite or the voice is missing."""
        if name not in VOICES:
            raise UserError(f"no Flite voice is called {name!r}: choose one of {', '.join(VOICES)}")
        self.name = name
        self._flite = _library()
        try:
            library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
        except OSError as error:
            raise UserError(
                f"Flite's voice {name} is not here ({error}): apt-get install libflite1"
            ) from error
        register = getattr(library, f"register_cmu_us_{name}")
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        self._voice = register(None)

    @property
    def speaker(self) -> str:
        """The name that corpora and voice tags use: "flite-slt"."""
        return f"flite-{self.name}"

    def synthesize(self, text: str) -> Speech:
        """Speak `text` (ASCII, one utterance).

        Words are the text's whitespace-separated tokens. "Dr." or "1842" are several spoken words, whose times
        are joined. Raises `ValueError` when Flite cuts the text into other tokens than the whitespace does, or
        says nothing for one of them (a dash on its own).
        """
        # Flite's breath noise comes from C's rand(): seed it, or samples depend on what was said before.
        _c_library().srand(1)
        utterance = self._flite.flite_synth_text(text.encode("ascii"), self._voice)
        try:
            wave = self._flite.utt_wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, shape=(wave.num_samples,)).copy()
            return Speech(samples, wave.sampling_rate, self._words(utterance, text))
        finally:
            self._flite.delete_utterance(utterance)

    def pronounce(self, word: str) -> list[str]:
        """Phones of `word` (CMU symbols in lower case, no stress; "ax" is the reduced vowel), pauses left out."""
        utterance = self._flite.flite_synth_text(word.encode("ascii"), self._voice)
        try:
            segments = self._items(self._flite.relation_head(self._flite.utt_relation(utterance, b"Segment")))
            phones = [self._flite.ffeature_string(item, _PHONE_OF_WORD).decode() for item in segments]
            return [phone for phone in phones if phone != "pau"]
        finally:
            self._flite.delete_utterance(utterance)

    def _items(self, first: int | None) -> list[int]:
        items = []
        item = first
        while item:
            items.append(item)
            item = self._flite.item_next(item)
        return items

    def _words(self, utterance: int, text: str) -> list[TimedWord]:
        written = text.split()
        tokens = self._items(self._flite.relation_head(self._flite.utt_relation(utterance, b"Token")))
        if len(tokens) != len(written):
            raise ValueError(f"Flite reads {len(tokens)} tokens where {len(written)} are written: {text!r}")
        words = []
        for token, word in zip(tokens, written, strict=True):
            spoken = self._items(self._flite.item_daughter(token))
            if not spoken:
                raise ValueError(f"Flite says nothing for {word!r} in {text!r}")
            start = self._flite.ffeature_float(spoken[0], _START_OF_WORD)
            end = self._flite.ffeature_float(spoken[-1], _END_OF_WORD)
            words.append(TimedWord(word, round(start, 4), round(end, 4)))
        return words


def flite(word: str) -> list[str]:
    """Phones of a word as CMU's dictionary writes them (upper case); all voices pronounce alike.

    Raises UserError without Flite's library.
    """
    return [phone.upper().replace("AX", "AH") for phone in _fastest_voice().pronounce(word)]


@lru_cache(maxsize=1)
def _fastest_voice() -> FliteVoice:
    return FliteVoice("kal16")


class FliteReader:
    """One of Flite's voices as a reader of corpora."""

    def __init__(self, name: str) -> None:
        """Load the voice `name`, one of `VOICES`."""
        self._voice = FliteVoice(name)
        self.speakers = (self._voice.speaker,)

    def synthesize(self, sentence: Sentence, speaker: str, random: np.random.Generator) -> Speech:
        """Read the written text, because Flite reads numbers itself; nothing is random."""
        return self._voice.synthesize(sentence.text)
