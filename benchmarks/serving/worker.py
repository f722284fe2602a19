"""A child process of the benchmark that takes jobs and answers them, one JSON object a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

from benchmarks.serving.cores import pin

_STOP_SECONDS = 10.0


class Worker:
    """A module of this package as a process, which calls `serve_jobs`. A context manager.

    Args:
        module: its dotted name.
        arguments: what `serve_jobs` hands to it.
        cores: where it runs.
        environment: its environment variables.

    Attributes:
        ready: what it said once it was ready.
    """

    def __init__(
        self, module: str, arguments: Mapping[str, Any], cores: frozenset[int], environment: Mapping[str, str]
    ) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(dict(arguments))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )
        pin(self._process.pid, cores)
        self._ready: dict[str, Any] | None = None

    @property
    def ready(self) -> dict[str, Any]:
        if self._ready is None:
            self._ready = self.receive()
        return self._ready

    def send(self, job: Mapping[str, Any]) -> None:
        """Starts a job; several workers' jobs run at the same time."""
        _ = self.ready
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(dict(job)) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Waits for the answer to the oldest job.

        Raises:
            ValueError: the process has ended.
        """
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise ValueError(
                f"{self._module} must answer. Received: exit status {self._process.wait()}; its error is above."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Does a job."""
        self.send(job)
        return self.receive()

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_jobs(prepare: Callable[..., tuple[Callable[..., dict[str, Any]], dict[str, Any]]]) -> None:
    """The main of a worker: prepares itself by its arguments, says that it is ready, then answers jobs until there are no more.

    Args:
        prepare: from the worker's arguments to what does a job, and what to say when ready.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # so that what a library prints is no answer
    do_job, ready = prepare(**json.loads(sys.argv[1]))
    answers.write(json.dumps(ready) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(do_job(**json.loads(line))) + "\n")
        answers.flush()
