"""Audio containers, as far as libsndfile does not look: how long a file really is, and whether its end is missing.

libsndfile believes the Xing or Info header of an MP3, or guesses from the size of the first frames, and stops where the
audio should end by that. A file without the header (of many speech services and recorders, of `lame -t`), or one that
was joined from several, is then cut or taken for truncated. Of a chained Ogg file it reads the first link. Of a
truncated WAV it reads what there is.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_SAMPLING_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_V1_L1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1_L2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1_L3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2_L1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2_L23 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBITS = {True: {1: _V1_L1, 2: _V1_L2, 3: _V1_L3}, False: {1: _V2_L1, 2: _V2_L23, 3: _V2_L23}}
_SAME = 0xFE0C  # of a header's second and third byte: version, layer and sampling rate, which do not change in a file
_HEAD = 2**16  # bytes in which the first frame mostly lies
_SLACK = 4096  # bytes by which a file may differ from what its header says: tags at the end
_MOST_PADDING = 4 * 1152  # samples of the encoder, which a header's count is without


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's place and length."""

    offset: int  # bytes
    size: int  # bytes
    samples: int
    layer: int


def mpeg_extent(file: BinaryIO, announced: int) -> tuple[int, int] | None:
    """Where the audio of an MPEG file begins (bytes), and its samples a channel.

    None where the `announced` samples are right: by the file's own header, or by libsndfile's guess without one.
    """
    content = file.read(_HEAD)
    size = file.seek(0, os.SEEK_END)
    first = next(_frames(content), None)
    if first is not None and _says(content, first, size):
        return None
    file.seek(0)
    content = file.read()
    walk = _frames(content)
    first = next(walk, None)
    if first is None or _says(content, first, size):
        return None
    tag = _tag(content, first)
    true = sum(frame.samples for frame in walk) + (first.samples if tag is None else 0)
    if announced == true or (tag is not None and true - _MOST_PADDING <= announced <= true):
        return None
    return first.offset + (0 if tag is None else first.size), true


def _frames(content: bytes) -> Iterator[Frame]:
    """All frames; what lies between them (tags of joined files) is passed over."""
    position = 0
    if content[:3] == b"ID3":
        position = 10 + sum((byte & 0x7F) << (21 - 7 * i) for i, byte in enumerate(content[6:10]))
    same: int | None = None
    while (found := content.find(b"\xff", position)) >= 0:
        frame = _frame(content, found)
        header = int.from_bytes(content[found + 1 : found + 3], "big") & _SAME
        if frame is None or (same is not None and header != same):
            position = found + 1
            continue
        end = found + frame.size
        if end > len(content):
            return
        # The first frame, and one after something else, is one if another follows.
        if (same is None or found != position) and end < len(content) and _frame(content, end) is None:
            position = found + 1
            continue
        same = header
        yield frame
        position = end


def _frame(content: bytes, offset: int) -> Frame | None:
    header = content[offset : offset + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = (header[1] >> 3) & 3, 4 - ((header[1] >> 1) & 3)
    kbits, rate, padding = header[2] >> 4, (header[2] >> 2) & 3, (header[2] >> 1) & 1
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    bits = _KBITS[version == 3][layer][kbits] * 1000
    hertz = _SAMPLING_RATES[version][rate]
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    size = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    return Frame(offset, size, samples, layer)


def _says(content: bytes, first: Frame, size: int) -> bool:
    """Whether the file's own header knows its length."""
    tag = _tag(content, first)
    return tag is not None and abs(tag - (size - first.offset)) <= _SLACK


def _tag(content: bytes, first: Frame) -> int | None:
    """The size in bytes that a Xing, Info or VBRI header gives the stream (0 if it does not); None without one."""
    body = content[first.offset : first.offset + first.size]
    # A Xing header comes after the frame's header and its side information, whose size depends on version and channels.
    for at in (13, 21, 36):
        if body[at : at + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(body[at + 4 : at + 8], "big")
            return int.from_bytes(body[at + 12 : at + 16], "big") if flags & 3 == 3 else 0
    return int.from_bytes(body[46:50], "big") if body[36:40] == b"VBRI" else None


def ogg_links(file: BinaryIO, size: int) -> tuple[list[tuple[int, int]], bool]:
    """The (offset, size) of each link of an Ogg file (several if it is chained), and whether its end is cut off."""
    starts = [0]
    position, heads = 0, True  # whether only first pages of streams have come since the last link began
    while position < size:
        file.seek(position)
        header = file.read(27)
        if len(header) < 27 or header[:4] != b"OggS":
            return _ranges(starts, size), header[:4] == b"OggS"
        lacing = file.read(header[26])
        first = bool(header[5] & 2)
        if first and not heads:
            starts.append(position)
        heads = first
        position += 27 + header[26] + sum(lacing)
    return _ranges(starts, size), position > size


def _ranges(starts: list[int], size: int) -> list[tuple[int, int]]:
    return [(start, stop - start) for start, stop in zip(starts, [*starts[1:], size], strict=True)]


def wrong_length(file: BinaryIO, size: int) -> str | None:
    """ "more" or "less" where the header of a WAV, RF64, W64, AIFF, CAF or AU file promises that than there is.

    Sizes of streams count as unknown. There is more than the header says where no chunk follows, but more than a tag.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64"):
        return _promised(file, size, 12, 4, 4, "little", b"data")
    if head[:4] == b"riff":
        return _promised(file, size, 40, 16, 8, "little", b"data")
    if head[:4] == b"FORM":
        return _promised(file, size, 12, 4, 4, "big", b"SSND")
    if head[:4] == b"caff":
        return _promised(file, size, 8, 4, 8, "big", b"data")
    if head[:4] == b".snd":
        start, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        return "more" if not _is_unknown(length) and start + length > size else None
    return None


def _promised(
    file: BinaryIO, size: int, position: int, name_bytes: int, size_bytes: int, order: str, wanted: bytes
) -> str | None:
    """Whether the chunk `wanted` is longer than the file, or ends where no other begins."""
    long_size: int | None = None
    while position + name_bytes + size_bytes <= size:
        file.seek(position)
        header = file.read(name_bytes + size_bytes)
        name, length = header[:4], int.from_bytes(header[name_bytes:], order)  # type: ignore[arg-type]
        start = position + len(header)
        if name == b"ds64":
            file.seek(start + 8)
            long_size = int.from_bytes(file.read(8), "little")
        if name_bytes == 16:
            length -= len(header)  # W64 counts the header too
        if name == wanted:
            if long_size is not None and length == 0xFFFFFFFF:
                length = long_size
            elif (size_bytes == 4 and _is_unknown(length)) or length == 2**64 - 1:
                return None
            if start + length > size:
                return "more"
        step = 8 if name_bytes == 16 else 1 if size_bytes == 8 else 2
        position = start + max(0, -(-length // step) * step)
        if name == wanted:
            file.seek(start + length)
            follows = file.read(16)  # a name, perhaps behind the padding that some programs forget; or zeros
            names = (follows[:4], follows[position - start - length :][:4])
            is_known = any(name == bytes(4) or name.decode("latin-1").isprintable() for name in names)
            return None if is_known or size - position <= _SLACK else "less"
    return None  # libsndfile says what is wrong with it


def _is_unknown(length: int) -> bool:
    """Whether a size is what programs write that do not know it yet."""
    return length >= 0xFFFFF000 or 0x7FFFE000 <= length <= 0x80000000
