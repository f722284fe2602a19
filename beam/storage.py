"""The folder that a data set is written in: a local one, or a staging folder in an object store that Beam knows."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from tqdm import tqdm

_PARTIAL = ".partial"  # ends the names of what is being written; listings leave them out
_COPY_SIZE = 1 << 24  # bytes; each read may be a request
_NUM_COPIES = 8  # files that are copied at once: one connection does not fill a worker's network
_RAW = CompressionTypes.UNCOMPRESSED
_Names = list[str]  # in the class, `list` is its method


@dataclasses.dataclass(frozen=True)
class DatasetFolder:
    """A folder of files that workers write once and read often; each appears whole or not at all.

    Of two bundles that write one file either may win: it depends on the run and its name alone. Workers read a remote
    file from a copy that is made once a machine (or container) and never renewed: a run needs a folder of its own.

    Attributes:
        url: a local path, or a URL such as gs://BUCKET/PATH.
    """

    url: str

    def __post_init__(self) -> None:
        _check_url(self.url)
        whole = os.path.abspath(os.path.expanduser(self.url)) if self.is_local else self.url.rstrip("/")
        object.__setattr__(self, "url", whole)

    @property
    def is_local(self) -> bool:
        """Whether every process reaches the files by their paths."""
        return "://" not in self.url

    @property
    def local_dir(self) -> Path:
        """The folder itself, or where this machine keeps copies of its files."""
        key = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return Path(self.url) if self.is_local else Path(tempfile.gettempdir(), f"tf_lift-{key}")

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write `name` to. It appears when the block ends well, and so do files written beside it."""
        folder = os.path.dirname(f"{self.url}/{name}")
        if self.is_local:
            os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(suffix=_PARTIAL, dir=folder if self.is_local else None) as aside:
            yield Path(aside, os.path.basename(name))
            written = os.listdir(aside)
            if not written:
                raise ValueError(f"A block must write at the path that it is given. Received: no file for {name!r}.")
            move = os.replace if self.is_local else _upload
            for part in sorted(written):
                move(f"{aside}/{part}", f"{folder}/{part}")

    def fetch(self, name: str) -> Path:
        """A local path to read a file from; a ValueError if there is no such file."""
        path = self.local_dir / name
        if not path.is_file():
            if self.is_local or not self.exists(name):
                raise ValueError(f"A file must be written before it is read. Received: {name!r}, not in {self.url}.")
            os.makedirs(path.parent, exist_ok=True)
            with open(f"{path}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # one thread of one process downloads, the machine's others wait
                if not path.is_file():
                    _download(f"{self.url}/{name}", path)
        return path

    def fetch_matching(self, *patterns: str) -> Path:
        """Fetches the files of some patterns, and returns the local folder in which they have their names."""
        with ThreadPoolExecutor(_NUM_COPIES) as pool:
            list(pool.map(self.fetch, [name for pattern in patterns for name in self.list(pattern)]))
        return self.local_dir

    def list(self, pattern: str) -> _Names:
        """Sorted names that a pattern matches; `*` and `?` match within a folder, as in `log/*.tfrecord`."""
        return sorted(self._find(pattern))

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return FileSystems.exists(f"{self.url}/{name}")

    def fetch_all(self, target: Path) -> None:
        """Copies every file into a local folder, with a bar; nothing if that is this folder."""
        if self.is_local and target.resolve() == Path(self.url).resolve():
            return
        sizes = self._find("**/*" if self.is_local else "**")
        for name in sizes:
            os.makedirs((target / name).parent, exist_ok=True)
        bar = tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc="fetch", mininterval=1.0)
        with bar, ThreadPoolExecutor(_NUM_COPIES) as pool:
            copies = pool.map(lambda name: _download(f"{self.url}/{name}", target / name), sizes)
            for size, _ in zip(sizes.values(), copies, strict=True):
                bar.update(size)

    def remove(self) -> None:
        """Removes the folder and all that is in it."""
        if self.is_local:
            shutil.rmtree(self.url, ignore_errors=True)
        else:
            FileSystems.delete([f"{self.url}/"])

    def forget_cache(self) -> None:
        """Removes this machine's copies of a remote folder's files."""
        if not self.is_local:
            shutil.rmtree(self.local_dir, ignore_errors=True)

    def _find(self, pattern: str) -> dict[str, int]:
        """Names and sizes in bytes of the files that a pattern matches."""
        if self.is_local:
            paths = [path for path in Path(self.url).glob(pattern) if path.is_file()]
            sizes = {path.relative_to(self.url).as_posix(): path.stat().st_size for path in paths}
        else:
            found = FileSystems.match([f"{self.url}/{pattern}"])[0].metadata_list
            sizes = {entry.path.removeprefix(f"{self.url}/"): entry.size_in_bytes for entry in found}
        return {name: size for name, size in sizes.items() if not re.search(r"\.partial(/|$)|/$", name)}


def _check_url(url: str) -> None:
    # Without its second slash gs:/bucket would be a local folder "gs:"; hdfs, an extra too, lists one level only.
    shape = r"(?!hdfs:)[^:]+://[^/]+/[^*?\[\]]*[^*?\[\]/]/?" if "://" in url else r"(?![a-zA-Z][\w+.-]+:).+"
    if not re.fullmatch(shape, url):
        raise ValueError(f"A folder is a local path, or one in a bucket as gs://BUCKET/PATH. Received: {url!r}.")
    try:
        FileSystems.get_filesystem(url)
    except ValueError as error:
        extra = {"gs": "gcp", "s3": "aws", "azfs": "azure"}.get(url.split(":")[0])
        advice = f'Install it: pip install "apache-beam[{extra}]".' if extra else "Beam knows gs, s3 and azfs."
        raise ValueError(f"Beam must know the file system of a folder. Received: {url!r}. {advice}") from error


def _upload(path: str, url: str) -> None:
    """Copies a file up under another name and renames it: an upload that was cut short never has the file's name."""
    aside = f"{os.path.dirname(url)}/{uuid.uuid4().hex}{_PARTIAL}"
    try:
        with open(path, "rb") as source, FileSystems.create(aside, compression_type=_RAW) as target:
            shutil.copyfileobj(source, target, _COPY_SIZE)
        FileSystems.rename([aside], [url])
    finally:
        if FileSystems.exists(aside):
            FileSystems.delete([aside])


def _download(url: str, path: Path) -> None:
    """Copies a file down, whole or not at all."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with FileSystems.open(url, compression_type=_RAW) as source, aside.open("wb") as target:
            shutil.copyfileobj(source, target, _COPY_SIZE)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
