"""Audio inside tar files, read where it lies: nothing is unpacked."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from codec.foundation import UserError
from data.audio import AudioError


@dataclass(frozen=True, slots=True)
class ArchivedAudio:
    """An audio file in an uncompressed tar file; opened, only what is read of it is touched."""

    archive: str
    name: str
    offset: int  # bytes, of the file's content in the archive
    size: int  # bytes

    def __str__(self) -> str:
        return f"{self.archive}, {self.name}"

    def open_audio(self) -> BinaryIO:
        try:
            file = open(self.archive, "rb", buffering=0)  # noqa: SIM115  (closed with the stream that is returned)
        except OSError as error:
            raise AudioError(f"{self}: cannot be opened ({error.strerror})") from None
        return io.BufferedReader(_Part(file, self.offset, self.size))


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file in a tar file, and its content where that was asked for."""

    audio: ArchivedAudio
    content: bytes | None


def archived_files(path: Path, read_suffix: str) -> Iterator[ArchivedFile]:
    """The regular files of a tar file in its order; those whose names end in `read_suffix` with their content.

    Only headers are read of the others. Raises UserError when it is compressed (nothing in it can be found without
    unpacking it), broken, or no tar file.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                content = None
                if member.name.endswith(read_suffix):
                    file = archive.extractfile(member)
                    content = file.read() if file is not None else None
                yield ArchivedFile(
                    ArchivedAudio(str(path), member.name, member.offset_data, member.size), content
                )
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all otherwise
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path}: not an uncompressed tar file, or a broken one ({error}): unpack it, or fetch it again"
        ) from None


class _Part(io.RawIOBase):
    """A range of a file as a file of its own."""

    def __init__(self, file: BinaryIO | io.FileIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        wanted = min(len(buffer), max(0, self._size - self._position))
        self._file.seek(self._offset + self._position)
        content = self._file.read(wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
