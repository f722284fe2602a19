"""What all parts of the benchmark share: the server, its clients, and the requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from benchmarks.serving.cores import Cores
from benchmarks.serving.load_clients import LoadClients
from benchmarks.serving.model_server import ModelServer
from benchmarks.serving.request_list import read_requests, write_requests
from benchmarks.serving.slates import Slates
from serving.ranking_messages import RANK_KNOWN_USER_SIGNATURE


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        seconds: of each measurement of load.
        slate_sizes: C, of `rank_known_user`.
        rank_slate_sizes: C, of `rank`.
        num_requests: other requests, asked in turn, of each size.
        num_c_requests: requests that the C runtime is asked, each many times.
        num_malformed: requests of the fuzzer.
        memory_requests: requests while the memory is watched.
        otherwise_clients: C -> numbers of clients of what one would build otherwise.
        seed: of all draws.
    """

    seconds: float
    slate_sizes: tuple[int, ...]
    rank_slate_sizes: tuple[int, ...]
    num_requests: int
    num_c_requests: int
    num_malformed: int
    memory_requests: int
    otherwise_clients: Mapping[int, tuple[int, ...]]
    seed: int


@dataclasses.dataclass(frozen=True)
class Rig:
    """The server under test and what asks it.

    Attributes:
        config_path: the configuration's file, and `overrides` of it.
        overrides: `SECTION.KEY=VALUE`.
        model_dir: the exported version.
        folder: for requests and for the server.
        cores: of both sides.
        environment: of all processes.
        settings: how much is measured.
        slates: where requests come from.
        server: the server, started.
        clients: the load clients.
    """

    config_path: str
    overrides: tuple[str, ...]
    model_dir: Path
    folder: Path
    cores: Cores
    environment: Mapping[str, str]
    settings: Settings
    slates: Slates
    server: ModelServer
    clients: LoadClients

    def requests(self, num_candidates: int, signature: str = RANK_KNOWN_USER_SIGNATURE, batch_size: int = 1) -> Path:
        """File of requests that are prepared, on first use."""
        path = self.folder / f"{signature}-{num_candidates}-{batch_size}"
        if not path.exists():
            count = max(2, self.settings.num_requests // batch_size)
            write_requests(path, self.slates.build(signature, num_candidates, count, batch_size))
        return path

    def first_request(self, num_candidates: int) -> bytes:
        """One request, the same each time."""
        return read_requests(self.requests(num_candidates))[0]
