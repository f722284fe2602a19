"""How many requests run and wait: the rest is refused at once, and all of them while the server drains."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from serving.request_error import RequestError


class Admission:
    """Lets a bounded number of requests run, and a bounded number wait for them.

    Args:
        max_concurrency: Requests that run at the same time.
        max_queue: Requests that may wait beyond these.
    """

    def __init__(self, max_concurrency: int, max_queue: int) -> None:
        self.num_running = 0
        self.num_waiting = 0
        self._max_concurrency = max_concurrency
        self._max_queue = max_queue
        self._is_draining = False
        lock = threading.Lock()
        self._freed = threading.Condition(lock)  # a place to run
        self._emptied = threading.Condition(lock)  # the whole server

    @contextmanager
    def admit(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Waits for a place to run, and holds it.

        Raises:
            RequestError: UNAVAILABLE while the server drains, RESOURCE_EXHAUSTED where too many wait already,
                DEADLINE_EXCEEDED or CANCELLED where the caller has given up before the request could run.
        """
        with self._freed:
            self._check_open()
            if not self._has_place() or self.num_waiting:
                self._wait(context)
            self.num_running += 1
            if self.num_waiting and self._has_place():
                self._freed.notify()
        try:
            _check_wanted(context)
            yield
        finally:
            with self._freed:
                self.num_running -= 1
                self._freed.notify()
                self._notify_if_empty()

    def _check_open(self) -> None:
        if self._is_draining:
            raise RequestError(
                grpc.StatusCode.UNAVAILABLE,
                "The server takes requests until it is told to stop. Received: one after that. "
                "Ask another server, or this one once it is back.",
            )
        if not self._has_place() and self.num_waiting >= self._max_queue:
            raise RequestError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The server runs {self._max_concurrency} requests at a time and lets {self._max_queue} wait. Received: "
                "one more. Send fewer at a time, or raise --max_queue.",
            )

    def _has_place(self) -> bool:
        return self.num_running < self._max_concurrency

    def _wait(self, context: grpc.ServicerContext) -> None:
        remaining = context.time_remaining()  # No deadline is None or centuries, by gRPC's version.
        timeout = None if remaining is None else min(remaining, threading.TIMEOUT_MAX)
        self.num_waiting += 1
        has_place = self._freed.wait_for(self._has_place, timeout)
        self.num_waiting -= 1
        if not has_place:
            self._notify_if_empty()
            raise _deadline_exceeded()

    def _notify_if_empty(self) -> None:
        if not self.num_running and not self.num_waiting:
            self._emptied.notify_all()

    def drain(self, timeout_seconds: float) -> bool:
        """Refuses new requests and waits until the admitted ones have ended; returns whether they did in time."""
        with self._emptied:
            self._is_draining = True
            return self._emptied.wait_for(lambda: not self.num_running and not self.num_waiting, timeout_seconds)


def _check_wanted(context: grpc.ServicerContext) -> None:
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        raise _deadline_exceeded()
    if not context.is_active():
        raise RequestError(
            grpc.StatusCode.CANCELLED,
            "A request runs while its caller waits. Received: one whose caller has gone. It was not run.",
        )


def _deadline_exceeded() -> RequestError:
    return RequestError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "A request must begin to run before its deadline. Received: one whose deadline has passed while it waited. "
        "Allow more time, or send fewer at a time.",
    )
