"""Several processes of load clients that begin at the same moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from benchmarks.serving.worker import Worker

_MAX_PROCESSES = 4
_AHEAD_SECONDS = 0.1  # from handing out a job to its begin: every process has read its requests by then
PERCENTILES = (50, 95, 99)


class LoadResult(NamedTuple):
    """What all clients of a run saw.

    Attributes:
        milliseconds: float64 [n] of the answered requests.
        requests_per_second: of the answered ones, from the begin until the last client's end.
        failures: gRPC status -> number.
        versions: version of the model -> number of answers.
    """

    milliseconds: np.ndarray
    requests_per_second: float
    failures: dict[str, int]
    versions: dict[int, int]


class LoadClients:
    """Clients in up to four processes, so that one of Python's is not what limits the load. A context manager.

    Args:
        cores: where they run.
        environment: their environment variables.
        num_processes: how many processes at most.
    """

    def __init__(
        self, cores: frozenset[int], environment: Mapping[str, str], num_processes: int = _MAX_PROCESSES
    ) -> None:
        self._workers = [Worker("benchmarks.serving.load_client", {}, cores, environment) for _ in range(num_processes)]
        self._busy: list[Worker] = []
        self._begin_at = 0.0

    def run(self, num_clients: int, requests_path: Path, target: str, seconds: float, **job: Any) -> LoadResult:
        """Asks for some seconds; the other arguments are attributes of `LoadJob`."""
        self.begin(num_clients, requests_path, target, seconds, **job)
        return self.finish()

    def begin(self, num_clients: int, requests_path: Path, target: str, seconds: float, **job: Any) -> None:
        """Begins a run, of a multiple of the number of processes, or of fewer clients."""
        num_processes = min(num_clients, len(self._workers))
        self._busy, self._begin_at = self._workers[:num_processes], time.monotonic() + _AHEAD_SECONDS
        for place, worker in enumerate(self._busy):
            worker.send(
                {
                    "requests_path": str(requests_path),
                    "target": target,
                    "num_threads": num_clients // num_processes,
                    "begin_at": self._begin_at,
                    "seconds": seconds,
                    "first_request": 17 * place,
                    **job,
                }
            )

    def finish(self) -> LoadResult:
        """Waits for the end of the run."""
        answers = [worker.receive() for worker in self._busy]
        milliseconds = np.concatenate([answer["milliseconds"] for answer in answers])
        elapsed = max(answer["ended_at"] for answer in answers) - self._begin_at
        failures, versions = (
            dict(sum((Counter(answer[name]) for answer in answers), Counter())) for name in ("failures", "versions")
        )
        return LoadResult(
            milliseconds,
            len(milliseconds) / max(elapsed, 1e-9),
            failures,
            {int(version): count for version, count in versions.items()},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()


def summarise(milliseconds: np.ndarray) -> dict[str, float]:
    """`p50`, `p95` and `p99`; none of no requests."""
    if not len(milliseconds):
        return {}
    values = np.percentile(milliseconds, PERCENTILES)
    return {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)}
