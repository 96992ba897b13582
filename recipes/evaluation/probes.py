"""What the codes of each quantizer say of the words and of the speaker: probes that need nothing but word times."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codec.foundation import Progress, UserError
from codec.metrics import Classification, Information, naive_bayes, predictive_information
from data import AudioError, Utterance, Word, read_audio
from recipes.evaluation.codec_evaluation import NamedCodec
from recipes.evaluation.reconstruction import Reconstructor

SILENCE = 0  # the label of frames in which no word is spoken


@dataclass(frozen=True)
class QuantizerProbe:
    """Of one quantizer's codes; None where the corpus does not say what is asked."""

    quantizer: int  # from 0
    characters: Information | None
    speakers: Information | None
    speaker: Classification | None


@dataclass(frozen=True)
class CodecProbe:
    """Of one codec."""

    codec: str
    quantizers: list[QuantizerProbe]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"quantizers": [asdict(entry) for entry in self.quantizers]}


def frame_characters(
    words: Sequence[Word], frames: int, frame_rate: float, numbers: dict[str, int]
) -> np.ndarray:
    """(frames,) the character that is spoken in the middle of each frame, as its number; `SILENCE` outside words.

    A word's characters share its time evenly, for no more is known of them; those that `numbers` does not have are
    left out. Frames inside words that have none, and those around words without times, are -1: not known.
    """
    labels = np.full(frames, SILENCE)
    middles = (np.arange(frames) + 0.5) / frame_rate
    known_until = 0.0
    unplaced = False
    for word in words:
        if word.start is None or word.end is None:
            unplaced = True
            continue
        if unplaced:  # somewhere between its neighbours
            labels[(middles >= known_until) & (middles < word.start)] = -1
        own = [numbers[c] for c in word.word.lower() if c in numbers]
        inside = np.flatnonzero((middles >= word.start) & (middles < word.end))
        if own:
            place = (middles[inside] - word.start) / (word.end - word.start) * len(own)
            labels[inside] = np.array(own)[np.minimum(place.astype(int), len(own) - 1)]
        else:
            labels[inside] = -1
        known_until, unplaced = word.end, False
    if unplaced:
        labels[middles >= known_until] = -1
    return labels


def probe(
    codecs: Sequence[NamedCodec], utterances: Sequence[Utterance], gain: float, device: str
) -> list[CodecProbe]:
    """Code the utterances with each codec and try every quantizer; recordings that cannot be read are left out.

    Raises UserError where the utterances have neither word times nor more than one speaker, or are too few.
    """
    if len(utterances) < 10:
        raise UserError(f"probes need 10 utterances at least: there are {len(utterances)}")
    texts = [word.word.lower() for utterance in utterances for word in utterance.words or () if word.placed]
    alphabet = sorted({c for text in texts for c in text if c.isalnum() or c == "'"})
    numbers = {character: number for number, character in enumerate(alphabet, start=SILENCE + 1)}
    voices = sorted({utterance.speaker for utterance in utterances if utterance.speaker is not None})
    if not numbers and len(voices) < 2:
        raise UserError(
            "there is nothing to probe codes with: the corpus has no word times (give some as --alignment) and not "
            "more than one speaker"
        )
    found = []
    with Progress(len(codecs) * len(utterances), unit="utterances", label="probing") as progress:
        for named in codecs:
            material = _Material(named, numbers, voices, device)
            for utterance in utterances:
                material.add(utterance, gain)
                progress.update(1)
            found.append(CodecProbe(named.name, list(material.probes())))
    return found


class _Material:
    """Codes of one codec beside what is known of their frames."""

    def __init__(self, named: NamedCodec, numbers: dict[str, int], voices: Sequence[str], device: str):
        self.config, self.numbers = named.codec.config, numbers
        self.reconstructor = Reconstructor(named.codec, device, vocodes=False)
        self.voices = {voice: number for number, voice in enumerate(voices)}
        self.spoken: list[np.ndarray] = []  # codes (quantizers, frames) whose characters are known
        self.characters: list[np.ndarray] = []  # (frames,)
        self.of_speakers: list[np.ndarray] = []  # codes (quantizers, frames) whose speaker is known
        self.speakers: list[int] = []

    def add(self, utterance: Utterance, gain: float) -> None:
        try:
            waveform = read_audio(utterance.path, self.config.sampling_rate) * gain
        except AudioError:
            return
        codes = self.reconstructor.encode(waveform).cpu().numpy()
        rate = self.config.sampling_rate / self.config.hop_length
        if self.numbers and utterance.words is not None:
            labels = frame_characters(utterance.words, codes.shape[1], rate, self.numbers)
            self.spoken.append(codes[:, labels >= 0])
            self.characters.append(labels[labels >= 0])
        if len(self.voices) > 1 and utterance.speaker is not None:
            self.of_speakers.append(codes)
            self.speakers.append(self.voices[utterance.speaker])

    def probes(self) -> Iterable[QuantizerProbe]:
        for quantizer, size in enumerate(self.config.codebook_sizes):
            characters = speakers = speaker = None
            if len(self.spoken) >= 10:
                characters = predictive_information(
                    [codes[quantizer] for codes in self.spoken], self.characters, size, len(self.numbers) + 1
                )
            if len(self.of_speakers) >= 10:
                streams = [codes[quantizer] for codes in self.of_speakers]
                frames = [np.full(len(row), own) for row, own in zip(streams, self.speakers, strict=True)]
                speakers = predictive_information(streams, frames, size, len(self.voices))
                speaker = naive_bayes(streams, self.speakers, size, len(self.voices))
            yield QuantizerProbe(quantizer, characters, speakers, speaker)
