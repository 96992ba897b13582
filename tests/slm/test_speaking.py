"""Long texts, many texts, and speech that leaves while it is made: what `speak` says, and nothing lost."""

import numpy as np
import pytest
import torch

from codec.foundation import UserError
from slm.generation.config import SamplingConfig, SpeechBounds
from slm.generation.planning import Planner, Prompt, SpeechRequest, cut_at_pauses, prompt_from
from slm.generation.results import stretched
from slm.generation.speech_lm import SpeechLM
from slm.vocabulary import Vocabulary
from tests.codec.small_codecs import small_codec
from tests.slm.test_generation import Inclined, speech_lm
from tests.slm.token_rows import codec_info, train_text_model

LONG = "Will we ever forget it?  No. " * 3 + "It rained, and nobody came. " + "a" * 30 + " The end."
WILD = SamplingConfig(temperature=2.0)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    model = train_text_model(tmp_path_factory.mktemp("text"), "char")
    return Vocabulary.build(model, codec_info((40,)), ["slt", "rms"])


@pytest.fixture(scope="module")
def voiceless(tmp_path_factory):
    return Vocabulary.build(train_text_model(tmp_path_factory.mktemp("text"), "char"), codec_info((40,)))


def words_read(vocabulary, ids):
    """The text in what a model has read."""
    return vocabulary.decode_text([token for token in ids if token < vocabulary.num_text])


@pytest.mark.parametrize("format", ["aligned", "tts"])
@pytest.mark.parametrize("named", [True, False])
def test_a_long_text_is_said_whole_however_slowly(vocabulary, voiceless, format, named):
    """A model that never ends by itself uses all the time it is given; all of the text is read to it all the same."""
    vocabulary = vocabulary if named else voiceless
    speaker = speech_lm(vocabulary, (format, "asr"), positions=384)
    # codes that vary enough not to be taken for silence, and no wish to end
    wanted = {vocabulary.speech_start + code: 9.0 for code in range(40)}
    model = Inclined(vocabulary, wanted, positions=384)
    speaker.decoder.model, speaker.decoder.longest = model, 384
    result = speaker.speak(LONG, sampling=WILD)
    assert not result.ended and all(
        "longest time" in cut for cut in result.cuts
    )  # slow, but nothing is missing
    stream = speaker.stream(LONG, sampling=WILD)
    assert sum(len(chunk.audio) for chunk in stream) == 10 * stream.codes.shape[1]
    assert torch.equal(stream.codes, result.codes) and stream.cuts == result.cuts
    if format == "aligned":
        assert "".join(span.text for span in result.spans) == LONG
        assert result.spans[-1].end == pytest.approx(result.codes.shape[1] / 24)


def test_passages_leave_room_for_the_slowest_speech(vocabulary):
    speaker = speech_lm(vocabulary, positions=384)
    planner = Planner(vocabulary, speaker.capabilities, SpeechBounds(passage_seconds=0), 384)
    passages = planner.passages(LONG, [vocabulary.voices["slt"]])
    assert "".join(passage.text for passage in passages) == LONG
    assert all(
        passage.most_tokens(1) < 384 and passage.ids[0] == vocabulary.voices["slt"] for passage in passages
    )
    assert "".join("".join(passage.texts) for passage in passages) == LONG
    shorter = Planner(vocabulary, speaker.capabilities, SpeechBounds(passage_seconds=1.5), 384).passages(
        LONG, [5]
    )
    assert len(shorter) > len(passages) > 1


def test_a_voice_without_a_name_is_kept_by_going_on_from_the_passage_before(voiceless):
    speaker = speech_lm(voiceless, ("tts",), positions=384)
    model = Inclined(voiceless, {voiceless.speech_start + code: 9.0 for code in range(40)}, positions=384)
    speaker.decoder.model = model
    text = "Will we ever forget it? " + "It rained, nobody came."
    bounds = SpeechBounds(passage_seconds=2.0)
    result = speaker.speak(text, sampling=WILD, bounds=bounds)
    first = next(i for i in range(1, len(model.read)) if model.read[i] == voiceless.text_id)
    assert words_read(voiceless, model.read[:first]) == "Will we ever forget it? "
    second = model.read[first:]
    assert words_read(voiceless, second) == text
    given = second[second.index(voiceless.speech_id) + 1 :]
    codes = (np.array(given) - voiceless.speech_start).tolist()
    assert codes == result.codes[0, : len(codes)].tolist() and len(codes) > result.codes.shape[1] // 2


def test_many_texts_are_said_as_each_alone(vocabulary):
    speaker = speech_lm(vocabulary, positions=384)
    texts = ["Yes.", LONG[:100], "Not at this particular case.", "No, no, no; never."]
    requests = [
        SpeechRequest(text, voice) for text, voice in zip(texts, ["rms", None, "slt", "rms"], strict=True)
    ]
    seen = []
    together = list(
        speaker.speak_all(
            requests, candidates=2, sampling=WILD, seed=3, batch_size=3, on_progress=seen.append
        )
    )
    for request, result in zip(requests, together, strict=True):
        alone = speaker.speak(request.text, request.voice, candidates=2, sampling=WILD, seed=3)
        assert torch.equal(result.codes, alone.codes) and result.scores == pytest.approx(alone.scores)
        assert result.spans == alone.spans and result.generation_seconds > 0
    words = [progress.words for progress in seen]
    assert words == sorted(words) and words[-1] == seen[-1].total_words == sum(
        len(text.split()) for text in texts
    )


@pytest.mark.parametrize("preset", ["hh-codec-tiny", "hh-codec-24hz-vocos"])
def test_a_stream_is_what_speak_says(vocabulary, preset):
    """Exactly where the codec streams, and closely where it is decoded in chunks; the codes are the same."""
    speaker = speech_lm(vocabulary)
    codec = small_codec(preset)
    speaker.__dict__["codec"] = codec
    text = "Will we ever forget it?  No. It rained."
    whole = speaker.speak(text, sampling=WILD, seed=5)
    stream = speaker.stream(text, sampling=WILD, seed=5)
    chunks = list(stream)
    assert torch.equal(stream.codes, whole.codes)
    audio = torch.cat([chunk.audio for chunk in chunks])
    assert audio.shape == whole.audio.shape
    if codec.config.streams:
        assert (audio - whole.audio).abs().max() <= 1e-4
    assert [span for chunk in chunks for span in chunk.spans] == whole.spans
    assert len(chunks) > 3 and len(chunks[0].audio) < 0.3 * 24_000
    words = [chunk.progress.words for chunk in chunks]
    assert words == sorted(words) and words[-1] == stream.total_words == len(text.split())
    assert 0 < stream.first_audio_seconds < stream.working_seconds
    assert stream.seconds == pytest.approx(len(audio) / 24_000)
    assert stream.smallest_lead < stream.seconds


def test_what_has_been_heard_is_not_taken_back(vocabulary):
    """`speak` takes most of an endless silence back; a stream, whose listener has heard it, only ends it."""
    speaker = speech_lm(vocabulary, ("tts",))
    speaker.decoder.model = Inclined(vocabulary, {vocabulary.speech_start + 3: 9.0})
    whole = speaker.speak("Will we ever forget it?", sampling=SamplingConfig(temperature=0.0))
    stream = speaker.stream("Will we ever forget it?", sampling=SamplingConfig(temperature=0.0))
    audio = torch.cat([chunk.audio for chunk in stream])
    assert whole.codes.shape[1] < stream.codes.shape[1] <= 72
    assert len(audio) == 10 * stream.codes.shape[1]
    assert stream.cuts == whole.cuts and "repeated itself" in stream.cuts[0] and not stream.ended


def test_prompts_that_cannot_be_followed_are_refused(vocabulary):
    speaker = speech_lm(vocabulary, ("tts",), prompts=True)
    speaker.__dict__["codec"] = small_codec("hh-codec-tiny")
    tone = torch.sin(torch.arange(44_100) / 20)
    assert len(speaker.prompt(0.1 * tone, 44_100).codes) == 24
    for waveform, complaint in {
        "silent": (torch.zeros(44_100), "tone.wav is silent"),
        "hiss": (1e-4 * torch.randn(44_100), "tone.wav is silent \\(-8"),
        "empty": (torch.zeros(0), "tone.wav holds no samples"),
        "broken": (tone / 0, "tone.wav holds NaN"),
        "short": (tone[:2_000], "tone.wav is 0.05 s long"),
    }.values():
        with pytest.raises(UserError, match=complaint):
            speaker.prompt(waveform, 44_100, name="tone.wav")
    long = Prompt(np.zeros(500, dtype=np.uint16), "Yes.")
    with pytest.raises(
        UserError, match=r"too long: 20.8 s, and this model follows up to 10.5 s with this text"
    ):
        speaker.speak("No.", prompt=long)
    with pytest.raises(UserError, match="does not clone strangers"):
        speech_lm(vocabulary).speak("No.", prompt=long)


def test_a_prompt_is_as_loud_as_what_codecs_were_trained_on(vocabulary):
    rate = vocabulary.codec.sampling_rate
    tone = torch.sin(torch.arange(rate) * 0.05)
    usual, quiet, loud = (prompt_from(tone * peak, rate, vocabulary.codec, "it") for peak in (0.3, 0.01, 1.0))
    assert torch.equal(usual, tone * 0.3)
    assert quiet.abs().max().item() == pytest.approx(0.475, rel=1e-3)
    assert torch.allclose(quiet, loud, atol=1e-6)


def test_a_long_recording_is_continued_from_its_end(vocabulary):
    speaker = speech_lm(vocabulary)
    recording = Prompt((np.arange(2_000) % 40).astype(np.uint16))
    result = speaker.continue_speech(recording, seconds=1.0)
    assert result.prompt_frames == 2_000 < result.codes.shape[1] <= 2_024
    longer = speaker.continue_speech(recording, seconds=1.0, least_seconds=1.0)
    assert longer.codes.shape[1] == 2_024
    with pytest.raises(UserError, match=r"83.3 s and the text do not fit .* the last \d+\.\d s"):
        speaker.continue_speech(Prompt(recording.codes, "Well"), text="I see.")
    with pytest.raises(UserError, match="read 21 s in all: let it go on for less than 60 s"):
        speaker.continue_speech(recording, seconds=60.0)


def test_a_loaded_model_speaks_through_the_fused_decoder(vocabulary, tmp_path):
    from slm.generation.decoders import FusedDecoder
    from slm.models.checkpoint import save_checkpoint

    speaker = speech_lm(vocabulary)
    speaker.model.float()
    save_checkpoint(tmp_path, speaker.model, vocabulary, speaker.capabilities)
    loaded = SpeechLM.from_pretrained(tmp_path)
    loaded.__dict__["codec"] = speaker.codec
    assert isinstance(loaded.decoder, FusedDecoder)
    said, expected = (
        model.speak(LONG[:60], sampling=SamplingConfig(temperature=0.0)).codes for model in (loaded, speaker)
    )
    assert torch.equal(said, expected)


def test_pauses_are_silence_between_what_is_said(vocabulary):
    """A pause is tokens of silence, whole and streamed; what comes before it is as it is without one."""
    speaker = speech_lm(vocabulary, ("tts", "asr"), positions=384)
    text = "Will we ever forget it? [pause 0.5] No."
    speaker.silence = vocabulary.codes_to_ids(np.array([7], dtype=np.uint16))  # this codec encodes nothing
    result = speaker.speak(text, sampling=WILD)
    before = speaker.speak("Will we ever forget it?", sampling=WILD).codes
    frames, first = 12, before.shape[1]
    silence = torch.from_numpy(vocabulary.ids_to_codes(speaker.silence).astype(np.int64))
    assert torch.equal(result.codes[:, :first], before)
    assert torch.equal(result.codes[:, first : first + frames], silence[:, None].expand(-1, frames))
    assert result.codes.shape[1] > first + frames
    stream = speaker.stream(text, sampling=WILD)
    samples = sum(len(chunk.audio) for chunk in stream)
    assert torch.equal(stream.codes, result.codes) and samples == len(result.audio)


def test_faster_speech_keeps_its_pitch():
    rate = 24_000
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(2 * rate) / rate)
    for speed in (0.5, 0.8, 1.0, 1.5, 2.0):
        faster = stretched(tone, speed)
        assert len(faster) == round(len(tone) / speed)
        middle = faster[len(faster) // 4 : -len(faster) // 4]
        peak = torch.fft.rfft(middle * torch.hann_window(len(middle))).abs().argmax()
        assert peak.item() * rate / len(middle) == pytest.approx(440, abs=4)
    with pytest.raises(UserError, match="the speed is 3"):
        stretched(tone, 3.0)


def test_long_recordings_are_cut_where_it_is_quiet():
    rate = 1_000
    waveform = torch.ones(35 * rate)
    waveform[9_300:9_700] = 0
    pieces = cut_at_pauses(waveform, rate, 12.0)
    assert torch.equal(torch.cat(pieces), waveform) and max(map(len, pieces)) <= 12 * rate
    assert 9_300 <= len(pieces[0]) <= 9_700
    assert len(cut_at_pauses(waveform[: 12 * rate], rate, 12.0)) == 1


def test_streams_generated_together_say_what_each_says_alone(vocabulary):
    """Texts of different lengths, seeds and pauses; one is stopped on the way; one comes later."""
    speaker = speech_lm(vocabulary, positions=384)
    texts = [
        "Yes.",
        LONG[:100],
        "Not at this [pause 0.5] particular case.",
        "No, no, no; never.",
        "It rained.",
    ]
    codec = small_codec("hh-codec-tiny")
    speaker.__dict__["codec"] = codec
    alone = [speaker.stream(text, sampling=WILD, seed=seed) for seed, text in enumerate(texts)]
    expected = [torch.cat([chunk.audio for chunk in stream]) for stream in alone]
    streams = [
        speaker.stream(text, sampling=WILD, seed=seed, chunk_frames=(48 if seed else 6,))
        for seed, text in enumerate(texts)
    ]
    stopped = speaker.stream(LONG[:100], sampling=WILD)
    audio = {stream: [] for stream in [*streams, stopped]}
    going, later = [*streams[:-1], stopped], streams[-1:]
    while going:
        for pieces in speaker.speak_on(going):
            for stream, piece in pieces:
                audio[stream].append(stream.decode(piece).audio)
            if len(audio[stopped]) == 2:
                stopped.stop()
        going, later = [stream for stream in going + later if not stream.is_over], []
    for stream, other, whole in zip(streams, alone, expected, strict=True):
        audio[stream].append(stream.finish().audio)
        assert torch.equal(stream.codes, other.codes) and stream.cuts == other.cuts
        assert (torch.cat(audio[stream]) - whole).abs().max() <= 1e-4
    assert stopped.is_over and 12 <= stopped.codes.shape[1] < 48
    with pytest.raises(ValueError, match="same sampling"):
        next(speaker.speak_on([speaker.stream("Yes."), speaker.stream("Yes.", sampling=WILD)]))
