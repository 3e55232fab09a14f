"""A file's bytes, unpacked as they are read, and bounded: a bomb ends in one line, and a line has a longest length."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from shoestring.errors import FileError, file_error
from shoestring.files import SMALL, regular

UNFOLDS = 200
"""Times its size that a packed file may hold, beyond `SMALL` bytes; text packs 3 to 10 times, logs up to 50."""
PIECE = 1 << 20
"""Bytes that are decoded at once."""
DAMAGED = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, pa.ArrowException)


class Unpacked:
    """The bytes of a file behind its compression; what goes wrong names the file."""

    def __init__(self, path: Path, stream: BinaryIO, packing: str) -> None:
        self.path, self.stream, self.packing = path, stream, packing
        self.most = SMALL + UNFOLDS * path.stat().st_size if packing else None
        self.given = 0

    def read(self, size: int = PIECE) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            FileError: damaged, unreadable, or more than such a file may hold.
        """
        return self._counted(self.stream.read, size)

    def lines(self, longest: int = SMALL) -> Iterator[bytes]:
        """The lines, each with its end.

        Raises:
            FileError: as `read`, or a line of more than `longest` bytes.
        """
        number = 0
        while line := self._counted(self.stream.readline, longest + 1):
            number += 1
            if len(line) > longest:
                raise FileError(f"{self.path}: line {number} has more than {longest:,} bytes; is it the right kind of file?")
            yield line

    def text(self) -> Iterator[str]:
        """The bytes as UTF-8, a byte-order mark left out, some at a time.

        Raises:
            FileError: as `read`, or not UTF-8 (with the byte's offset in the unpacked file), or a NUL byte.
        """
        offset, rest = 0, b""
        while piece := self.read():
            whole = rest + piece
            end = _boundary(whole)
            yield decode(whole[:end], self.path, offset)
            offset, rest = offset + end, whole[end:]
        if rest:
            yield decode(rest, self.path, offset)

    def _counted(self, call: Callable[[int], bytes], size: int) -> bytes:
        try:
            found = call(size)
        except DAMAGED as error:
            raise self._damaged(error) from error
        except OSError as error:
            if error.errno is None:  # a decompressor's word
                raise self._damaged(error) from error
            raise file_error(self.path, error) from error
        self.given += len(found)
        if self.most is not None and self.given > self.most:
            raise FileError(
                f"{self.path}: unpacks to more than {self.most:,} bytes, over {UNFOLDS} times its size; "
                "if it really is text, unpack it first"
            )
        return found

    def _damaged(self, error: Exception) -> FileError:
        return FileError(
            f"{self.path}: can't be unpacked as {self.packing} ({error}); it is damaged or not that kind of file"
            if self.packing
            else f"{self.path}: can't be read ({error})"
        )


@contextmanager
def unpacked(path: Path, packing: str) -> Iterator[Unpacked]:
    """Open a plain file for reading, through its compression (".gz", ".bz2", ".xz", ".zst") where it has one.

    Raises:
        FileError: missing, not a plain file, or it can't be opened.
    """
    regular(path)
    try:
        stream = _open(path, packing)
    except OSError as error:
        raise file_error(path, error) from error
    with stream:
        yield Unpacked(path, stream, packing)


def decode(content: bytes, path: Path | str, offset: int = 0) -> str:
    """UTF-8 to text, a byte-order mark left out, line ends as they are.

    Raises:
        FileError: with the offset of the first bad byte in the (unpacked) file.
    """
    try:
        return content.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        # Python counts from behind a byte-order mark.
        mark = 3 if offset == 0 and content.startswith(b"\xef\xbb\xbf") else 0
        at, byte = offset + error.start + mark, error.object[error.start]
        raise FileError(f"{path}: not UTF-8 at byte {at} (0x{byte:02x}); convert it, for example with iconv") from error


def _open(path: Path, packing: str) -> BinaryIO:
    match packing:
        case ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        case ".bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        case ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        case ".zst":
            return io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(path.open("rb"), "zstd")))
        case _:
            return path.open("rb")


def _boundary(content: bytes) -> int:
    """Where the last character that may be unfinished begins."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte < 0x80:
            return len(content)
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(content) - back if back < needed else len(content)
    return len(content)
