"""Commands that use a codec by hand or turn one into a model directory: encode, decode, reconstruct, export, import."""

import sys
from math import log2
from pathlib import Path
from typing import Literal

from codec.foundation import UserError
from recipes.inputs import STANDARD, check_folder_output


def encode(
    audio: list[str], output: str, codec: str = "hh-codec-any-voice", json: bool = False, device: str = "auto"
) -> None:
    """Encode audio files into one Parquet file of codes.

    Args:
        audio: audio files, or directories of them; - reads one from standard input.
        output: the Parquet file.
        codec: name of a bundled codec, a model directory, or a hub id.
        json: print the result as JSON.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec.foundation import write_bytes
    from data.tokenization import BatchEncoder, TokenRow, parquet_bytes
    from recipes.apps.result_printer import ResultPrinter
    from recipes.loading import audio_progress, counted_blocks, find_audio, load_codec_on, use_few_threads

    check_folder_output(Path(output).parent)
    files = find_audio(audio)
    progress = audio_progress(files.values(), "encoding")
    model = load_codec_on(codec, device)
    use_few_threads(model)
    encoder = BatchEncoder(model)
    rate = encoder.info.sampling_rate
    rows = []
    with progress:
        for identity, path in files.items():
            codes = encoder.encode_long(counted_blocks(path, rate, progress))
            rows.append(TokenRow(identity, codes.stream, codes.samples / rate, voice=codes.voice))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, parquet_bytes(rows, encoder.info))
    frames = sum(len(row.codes) for row in rows) // encoder.info.num_quantizers
    said = f"{len(rows):,} recordings, {frames:,} frames of {encoder.info.name}"
    ResultPrinter(json).tell(output, [said], recordings=len(rows), frames=frames, codec=encoder.info.name)


def decode(
    tokens: str, output: str, split: str = "train", codec: str | None = None, device: str = "auto"
) -> None:
    """Decode codes into WAV files, one a row.

    Args:
        tokens: a Parquet file that `encode` wrote, or a token dataset.
        output: directory of the WAV files.
        split: which split of a token dataset.
        codec: name of a bundled codec, a model directory, or a hub id; the one that made the codes. Unset: the bundled
            codec of the name that is in the file.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from data import TokenDataset
    from recipes.loading import decode_row, load_codec_of, use_few_threads, wav_path

    check_folder_output(output)
    dataset = TokenDataset.open(tokens, split)
    model = load_codec_of(dataset, codec, device)
    use_few_threads(model)
    for row in range(len(dataset)):
        decode_row(model, dataset, row, wav_path(Path(output), dataset.id(row)))
    print(f"{output}: {len(dataset):,} recordings")


def reconstruct(
    audio: list[str], output: str, codec: str = "hh-codec-any-voice", json: bool = False, device: str = "auto"
) -> None:
    """Send audio through the codec: to codes and back, each file to a WAV of the same length.

    Args:
        audio: audio files, or directories of them; - reads one from standard input.
        output: directory of the WAV files; - writes the WAV of one recording to standard output.
        codec: name of a bundled codec, a model directory, or a hub id.
        json: print results as JSON.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    import torch

    from data import write_audio
    from data.tokenization import BatchEncoder, to_codes
    from recipes.apps.result_printer import ResultPrinter
    from recipes.apps.wav_stream import wav_bytes
    from recipes.loading import (
        as_voice,
        audio_progress,
        counted_blocks,
        find_audio,
        first_samples,
        load_codec_on,
        use_few_threads,
        wav_path,
    )

    files = find_audio(audio)
    if output == STANDARD and len(files) > 1:
        raise UserError("--output - is for one recording: give a directory")
    targets = dict.fromkeys(files, STANDARD)
    if output != STANDARD:
        check_folder_output(output)
        targets = {identity: str(wav_path(Path(output), identity)) for identity in files}
    progress, results = audio_progress(files.values(), "reconstructing"), ResultPrinter(json)
    model = load_codec_on(codec, device)
    use_few_threads(model)
    encoder = BatchEncoder(model)
    info = encoder.info
    bits = sum(log2(size) for size in info.codebook_sizes)  # a frame
    with progress:
        for identity, path in files.items():
            codes = encoder.encode_long(counted_blocks(path, info.sampling_rate, progress))
            decoded = model.decode_blocks(to_codes(codes.stream, info.num_quantizers), as_voice(codes.voice))
            blocks = first_samples(decoded, codes.samples)
            target = targets[identity]
            if target == STANDARD:
                sys.stdout.buffer.write(wav_bytes(torch.cat(list(blocks)), info.sampling_rate))
            else:
                write_audio(target, blocks, info.sampling_rate)
            seconds, frames = codes.samples / info.sampling_rate, len(codes.stream) // info.num_quantizers
            rate = frames * bits / seconds
            said = f"{seconds:.2f} s, {frames} frames, {rate:,.0f} bit/s"
            results.tell(target, [said], seconds=seconds, frames=frames, bits_per_second=rate)


def export_codec_command(
    run: Path,
    output: Path,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    checkpoint: Literal["final", "best", "latest"] | None = None,
    vocoder: Path | None = None,
) -> int:
    """Turn a codec's training run into a model directory for use: folded, rounded once, with its fingerprint.

    Args:
        run: the run directory; also one of its checkpoints, or a model directory.
        output: where the model directory goes; an exported codec that is there is replaced.
        dtype: what the weights are stored in. They are computed with in float32 wherever they are loaded.
        checkpoint: which of the run's; its result when unset, or without one the latest. The best has the lowest
            validation score.
        vocoder: a vocoder by itself, as import-weights writes it, in the place of the codec's own. It has to hear the
            same mel. The fingerprint stays: codes mean what they meant.
    """
    from codec import save_codec
    from codec.export import with_vocoder
    from codec.loading import load_trained, load_vocoder

    model = load_trained(run, checkpoint)
    if vocoder is not None:
        model = with_vocoder(model, load_vocoder(vocoder))
    exported = save_codec(model, output, dtype)
    print(f"exported {exported.config.name}, fingerprint {exported.config.fingerprint}: {output}")
    return 0


def import_weights_command(
    file: Path,
    output: Path,
    kind: Literal["auto", "hh-codec", "bigvgan", "vocos"] = "auto",
    weights: Literal["average", "raw"] = "average",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    trainable: bool = False,
) -> int:
    """Turn a published file of weights into a directory of this project's form. Nothing in the file is run.

    The original HH-Codec's Lightning checkpoint becomes a codec, exported, with its fingerprint. NVIDIA's BigVGAN v2
    (bigvgan_generator.pt, with its config.json beside it) and charactr/vocos-mel-24khz (pytorch_model.bin) become
    vocoders: `train-codec --initialize.vocoder DIR` starts from one, `export --vocoder DIR` puts one into a codec.

    Args:
        file: the file of weights.
        output: where the directory goes; a codec or vocoder that is there is replaced.
        kind: what the file is; by its names unless given.
        weights: of an HH-Codec the average over training steps, which its authors evaluate, or the raw ones.
        dtype: what a codec's weights are stored in; vocoders by themselves stay in float32.
        trainable: keep of a codec what only training needs, in float32: `train-codec --model DIR --initialize.all DIR`
            goes on from it, for its codes may still change; `export` makes a codec to use of it.
    """
    from codec.importing import import_weights

    print(import_weights(file, output, kind, weights, dtype, trainable))
    return 0
