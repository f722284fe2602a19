"""Which cores the server and the load clients run on, and the memory of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_KIBIBYTE = 1024


class Cores(NamedTuple):
    """Cores of both sides: disjoint where the machine has two, otherwise the same ones.

    Attributes:
        server: of whatever runs the model: the server, the call in process, and the C runtime.
        clients: of the load clients and of the benchmark itself.
    """

    server: frozenset[int]
    clients: frozenset[int]

    def describe(self) -> str:
        """One sentence for the report."""
        if self.server == self.clients:
            return "Nothing is pinned, as there are not two cores, or the system cannot pin."
        server, clients = (", ".join(map(str, sorted(cores))) for cores in self)
        return f"The server is pinned to core {server} with 1 thread of TensorFlow, the clients to core {clients}."


def can_pin() -> bool:
    """Whether the system lets a process choose its cores."""
    return hasattr(os, "sched_setaffinity")


def choose_cores() -> Cores:
    """The last core for the server, the others for the clients."""
    available = sorted(os.sched_getaffinity(0)) if can_pin() else [0]
    if len(available) < 2:
        return Cores(frozenset(available), frozenset(available))
    return Cores(frozenset(available[-1:]), frozenset(available[:-1]))


def pin(process_id: int, cores: frozenset[int]) -> None:
    """Binds a process that has just been started, or the calling thread where the id is 0: later threads inherit it."""
    if can_pin():
        os.sched_setaffinity(process_id, cores)


@contextmanager
def pinned_to(cores: frozenset[int]) -> Iterator[None]:
    """Binds the calling thread, and so the processes that it starts, for a while."""
    before = frozenset(os.sched_getaffinity(0)) if can_pin() else cores
    pin(0, cores)
    try:
        yield
    finally:
        pin(0, before)


def read_memory(process_id: int) -> dict[str, int]:
    """Bytes of a process: `rss`, resident; `pss`, the same with shared pages divided among all who share them, so that other processes
    move it; and `anonymous`, what is of no file, its own alone.
    """
    found = {}
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss", "Anonymous"):
            found[name.lower()] = int(rest.split()[0]) * _KIBIBYTE
    return found
