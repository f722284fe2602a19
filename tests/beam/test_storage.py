"""The data set's folder: local, and in an object store that this file makes up."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from beam.storage import DatasetFolder

VAULT = "TF_LIFT_TEST_VAULT"  # environment variable: the local folder beneath vault://, for worker processes too
TEXT = b"abc" * 50_000


class VaultFileSystem(FileSystem):
    """An object store: vault://BUCKET/NAME. Names are flat; an object is there when its writer is closed."""

    opened: list[str] = []
    breaks_on_rename = False
    wait_seconds = 0.0

    @classmethod
    def scheme(cls):
        return "vault"

    @staticmethod
    def path_of(url: str) -> Path:
        return Path(os.environ[VAULT], url.removeprefix("vault://").replace("/", "\u2215"))

    def join(self, basepath, *paths):
        return "/".join([basepath, *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path in sorted(Path(os.environ[VAULT]).iterdir()):
            url = "vault://" + path.name.replace("\u2215", "/")
            if url.startswith(dir_or_prefix):
                yield self.metadata(url)

    def create(self, path, mime_type="application/octet-stream", compression_type="auto"):
        assert compression_type == "uncompressed"
        return _Upload(self.path_of(path))

    def open(self, path, mime_type="application/octet-stream", compression_type="auto"):
        assert compression_type == "uncompressed"
        VaultFileSystem.opened.append(path)
        with self.path_of("vault://downloads").open("a") as log:  # counts the other processes' too
            log.write(f"{path}\n")
        time.sleep(self.wait_seconds)
        return self.path_of(path).open("rb")

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            shutil.copyfile(self.path_of(source), self.path_of(destination))

    def rename(self, source_file_names, destination_file_names):
        if self.breaks_on_rename:
            raise BeamIOError("Rename operation failed")
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path):
        return self.path_of(path).is_file()

    def size(self, path):
        return self.path_of(path).stat().st_size

    def last_updated(self, path):
        return self.path_of(path).stat().st_mtime

    def metadata(self, path):
        return FileMetadata(path, self.size(path), self.last_updated(path))

    def delete(self, paths):
        for path in paths:
            urls = [entry.path for entry in self._list(path)] if path.endswith("/") else [path]
            for url in urls:
                self.path_of(url).unlink()


class _Upload(io.BytesIO):
    """Closing it makes the object, of what was written so far."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def close(self):
        if not self.closed:
            self._path.write_bytes(self.getvalue())
        super().close()


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty store, and a temporary folder of its own for the copies."""
    store, temporary = tmp_path / "store", tmp_path / "temporary"
    store.mkdir()
    temporary.mkdir()
    monkeypatch.setenv(VAULT, str(store))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    VaultFileSystem.opened.clear()
    yield store


@pytest.fixture(params=["local", "vault"])
def folder(request: pytest.FixtureRequest, vault: Path, tmp_path: Path) -> DatasetFolder:
    return DatasetFolder(str(tmp_path / "data set") if request.param == "local" else "vault://bucket/data set/run")


def write(folder: DatasetFolder, name: str, content: bytes = b"x") -> None:
    with folder.writing(name) as path:
        path.write_bytes(content)


def all_paths(folder: DatasetFolder, vault: Path) -> list[str]:
    """Every file and folder that writing has left, those aside too."""
    root = Path(folder.url) if folder.is_local else vault
    temporary = vault.parent / "temporary"
    return sorted(path.name for path in [*root.rglob("*"), *temporary.rglob("*")])


def test_what_is_written_is_read(folder):
    write(folder, "vocabulary/user.tsv", TEXT)
    write(folder, "users.npy")
    assert folder.fetch("vocabulary/user.tsv").read_bytes() == TEXT
    assert folder.exists("users.npy")
    assert not folder.exists("items.npy")


def test_a_file_is_not_there_before_its_block_ends(folder):
    with folder.writing("log/part-0.tfrecord") as path:
        path.write_bytes(b"half")
        assert not folder.exists("log/part-0.tfrecord")
        assert folder.list("log/*") == folder.list("*/*") == []
    assert folder.list("log/*") == ["log/part-0.tfrecord"]


def test_an_error_leaves_nothing(folder, vault):
    def fail() -> None:
        with folder.writing("users.npy") as path:
            path.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert all_paths(folder, vault) == []


def test_an_upload_that_fails_leaves_nothing(vault, monkeypatch):
    folder = DatasetFolder("vault://bucket/run")
    monkeypatch.setattr(VaultFileSystem, "breaks_on_rename", True)
    with pytest.raises(BeamIOError, match="Rename operation failed"):
        write(folder, "users.npy")
    assert all_paths(folder, vault) == []


def test_an_upload_that_is_cut_short_leaves_nothing(vault, monkeypatch):
    def cut_short(source, target, _):
        target.write(source.read(10))
        raise OSError("connection lost")

    monkeypatch.setattr(shutil, "copyfileobj", cut_short)
    with pytest.raises(OSError, match="connection lost"):
        write(DatasetFolder("vault://bucket/run"), "users.npy", TEXT)
    assert list(vault.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error(folder):
    with pytest.raises(ValueError, match="at the path that it is given. Received: no file for 'users.npy'"):
        with folder.writing("users.npy"):
            pass


def test_a_file_keeps_its_name_while_it_is_written(folder):
    with folder.writing("users.npy") as path:
        np.save(path, np.arange(3))  # would add .npy to another ending
    assert folder.list("*") == ["users.npy"]
    assert np.load(folder.fetch("users.npy"), mmap_mode="r").tolist() == [0, 1, 2]


def test_files_beside_the_path_appear_too(folder):
    with folder.writing("posting_lists/set-000") as path:
        for part in ("keys", "ranks"):
            np.save(path.with_name(f"{path.name}.{part}.npy"), np.zeros(1))
    assert folder.list("posting_lists/*") == ["posting_lists/set-000.keys.npy", "posting_lists/set-000.ranks.npy"]


def test_a_second_write_of_a_name_gives_one_file(folder, vault):
    with folder.writing("a/one.npy") as first:  # a speculative bundle, slower than its twin
        write(folder, "a/one.npy", TEXT)
        first.write_bytes(TEXT)
    write(folder, "a/one.npy", TEXT)
    assert folder.list("a/*") == ["a/one.npy"]
    assert folder.fetch("a/one.npy").read_bytes() == TEXT
    assert not [name for name in all_paths(folder, vault) if name.endswith(".partial")]


def test_names_are_sorted_and_stars_stay_in_a_folder(folder):
    for name in ("log/b.tfrecord", "users.npy", "log/a.tfrecord", "log/a.txt", "items.npy"):
        write(folder, name)
    assert folder.list("*.npy") == ["items.npy", "users.npy"]
    assert folder.list("log/*.tfrecord") == ["log/a.tfrecord", "log/b.tfrecord"]
    assert folder.list("*") == ["items.npy", "users.npy"]
    assert folder.list("facts/*") == []


def test_a_missing_file_is_named(folder):
    with pytest.raises(ValueError, match=r"written before it is read\. Received: 'users\.npy', not in .*data set"):
        folder.fetch("users.npy")


def test_a_local_file_is_read_where_it_lies(tmp_path, vault):
    folder = DatasetFolder(str(tmp_path / "local"))
    write(folder, "users.npy")
    assert folder.fetch("users.npy") == tmp_path / "local" / "users.npy"
    assert folder.fetch_matching("*.npy") == tmp_path / "local"
    folder.forget_cache()
    folder.fetch_all(tmp_path / "local")
    assert folder.exists("users.npy")
    folder.remove()
    assert not folder.exists("users.npy")


def test_a_remote_file_is_downloaded_once(vault):
    folder = DatasetFolder("vault://bucket/run")
    for name in ("log/0.tfrecord", "log/1.tfrecord", "users.npy"):
        write(folder, name, name.encode())
    root = folder.fetch_matching("log/*.tfrecord", "users.npy")
    assert folder.fetch_matching("log/*.tfrecord") == root
    assert folder.fetch("log/1.tfrecord") == root / "log" / "1.tfrecord"
    assert sorted(path.name for path in root.glob("log/*.tfrecord")) == ["0.tfrecord", "1.tfrecord"]
    assert [(root / name).read_text() for name in folder.list("log/*")] == ["log/0.tfrecord", "log/1.tfrecord"]
    assert len(VaultFileSystem.opened) == 3
    folder.forget_cache()
    assert not root.exists()
    assert folder.fetch("users.npy").read_text() == "users.npy"
    assert len(VaultFileSystem.opened) == 4


def test_folders_share_no_copies(vault):
    folders = [DatasetFolder(f"vault://bucket/run-{index}") for index in range(2)]
    for folder in folders:
        write(folder, "users.npy", folder.url.encode())
    assert [folder.fetch("users.npy").read_text() for folder in folders] == [folder.url for folder in folders]


def test_threads_wait_for_one_download(vault, monkeypatch):
    folder = DatasetFolder("vault://bucket/run")
    write(folder, "a/log.npy", TEXT)
    monkeypatch.setattr(VaultFileSystem, "wait_seconds", 0.1)
    barrier = threading.Barrier(6)

    def read(_: int) -> bytes:
        barrier.wait()
        return folder.fetch("a/log.npy").read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(read, range(6))) == {TEXT}
    assert len(VaultFileSystem.opened) == 1


def test_processes_wait_for_one_download(vault, monkeypatch):
    folder = DatasetFolder("vault://bucket/run")
    write(folder, "a/log.npy", TEXT)
    start = f"import runpy; runpy.run_path({__file__!r})['fetch_whole']({folder.url!r})"
    environment = os.environ | {
        "TMPDIR": str(vault.parent / "temporary"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    children = [
        subprocess.Popen([sys.executable, "-c", start], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [child.stdout.readline() for child in children] == [b"ready\n"] * 3
    for child in children:
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0] * 3
    for child in children:
        child.stdout.close()
    assert (vault / "downloads").read_text().splitlines() == ["vault://bucket/run/a/log.npy"]


def fetch_whole(url: str) -> None:
    """Another process's part: says that it has started, waits for the word, and reads."""
    VaultFileSystem.wait_seconds = 0.5
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    assert DatasetFolder(url).fetch("a/log.npy").read_bytes() == TEXT


def test_a_download_that_is_cut_short_is_made_again(vault, monkeypatch):
    folder = DatasetFolder("vault://bucket/run")
    write(folder, "log.npy", TEXT)

    def cut_short(source, target, _):
        target.write(source.read(10))
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", cut_short)
        with pytest.raises(OSError, match="connection lost"):
            folder.fetch("log.npy")
    assert folder.fetch("log.npy").read_bytes() == TEXT


def test_fetch_all_copies_whole_files_and_no_others(folder, tmp_path, vault, capsys):
    names = ["log/0.tfrecord", "log/deep/1.tfrecord", "users.npy", "rejected/00000-[x].csv.tsv"]
    for name in names:
        write(folder, name, name.encode())
    left = "0123.partial"  # a killed writer's
    if folder.is_local:
        (Path(folder.url) / left).mkdir()
        (Path(folder.url) / left / "users.npy").write_bytes(b"half")
    else:
        with FileSystems.create(f"{folder.url}/log/{left}", compression_type="uncompressed") as file:
            file.write(b"half")
    target = tmp_path / "target"
    folder.fetch_all(target)
    found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert sorted(found) == sorted(names)
    assert all(path.read_text() == name for name, path in found.items())
    assert "fetch: 100%" in capsys.readouterr().err


def test_remove_takes_this_folder_alone(vault):
    folder, neighbour = DatasetFolder("vault://bucket/run"), DatasetFolder("vault://bucket/run-2")
    for each in (folder, neighbour):
        write(each, "users.npy")
        write(each, "log/0.tfrecord")
    folder.remove()
    assert folder.list("*") == folder.list("*/*") == []
    assert neighbour.list("*") == ["users.npy"]
    assert neighbour.list("log/*") == ["log/0.tfrecord"]


def test_folders_are_pickled(folder):
    write(folder, "users.npy", TEXT)
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert again.fetch("users.npy").read_bytes() == TEXT


def test_urls_are_brought_into_one_form(monkeypatch, tmp_path, vault):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DatasetFolder("data/").url == DatasetFolder("~/data").url == str(tmp_path / "data")
    assert DatasetFolder("vault://bucket/run/") == DatasetFolder("vault://bucket/run")


@pytest.mark.parametrize(
    "url",
    ["", "gs:/bucket/run", "file:data", "vault://bucket", "vault://bucket/", "vault:///run", "hdfs://server/run"]
    + ["vault://bucket/run-*", "vault://bucket/[run]", "vault://bucket/run?/x"],
)
def test_urls_of_another_form_are_refused(url):
    with pytest.raises(ValueError, match="a local path, or one in a bucket as gs://BUCKET/PATH. Received: "):
        DatasetFolder(url)


def test_a_local_folder_may_have_brackets(tmp_path):
    folder = DatasetFolder(str(tmp_path / "[a]"))
    write(folder, "log/x.npy")
    assert folder.list("log/*") == ["log/x.npy"]


def test_unknown_file_systems_say_what_to_install(monkeypatch):
    with pytest.raises(ValueError, match=r"Received: 'ftp://host/run'\. Beam knows gs, s3 and azfs\."):
        DatasetFolder("ftp://host/run")
    monkeypatch.setattr(FileSystem, "get_all_subclasses", classmethod(lambda cls: [VaultFileSystem]))  # no extras
    with pytest.raises(
        ValueError, match=r"Received: 'gs://bucket/run'\. Install it: pip install \"apache-beam\[gcp\]\""
    ):
        DatasetFolder("gs://bucket/run")
