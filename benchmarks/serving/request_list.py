"""Requests that were prepared before they are timed: serialized messages in one file. Imports no TensorFlow."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """Writes serialized requests; returns the path."""
    path.write_bytes(pickle.dumps(list(requests)))
    return path


def read_requests(path: Path | str) -> list[bytes]:
    """Reads what `write_requests` wrote, which only this benchmark does, into a folder of its own."""
    requests: list[bytes] = pickle.loads(Path(path).read_bytes())
    return requests
