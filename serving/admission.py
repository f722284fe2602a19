"""How many requests run and wait: the rest is refused at once, and all of them while the server drains."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from serving.request_error import RequestError


class _Ticket:
    """A request that waits: `called` is set when it is its turn, or when its caller has gone."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.has_place = False


class Admission:
    """Lets a bounded number of requests run, and a bounded number wait for them.

    Args:
        max_concurrency: Requests that run at the same time.
        max_queue: Requests that may wait beyond these.
    """

    def __init__(self, max_concurrency: int, max_queue: int) -> None:
        self.num_running = 0
        self._max_concurrency = max_concurrency
        self._max_queue = max_queue
        self._is_draining = False
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket] = deque()  # the oldest first
        self._emptied = threading.Condition(self._lock)  # the whole server

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @contextmanager
    def admit(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Waits for a place to run, and holds it; places go to those who wait, in the order of their arrival.

        Raises:
            RequestError: UNAVAILABLE while the server drains, RESOURCE_EXHAUSTED where too many wait already,
                DEADLINE_EXCEEDED or CANCELLED where the caller has given up before the request could run.
        """
        ticket = self._take_ticket()
        if ticket is not None:
            self._wait(ticket, context)
        try:
            _check_wanted(context)
            yield
        finally:
            with self._lock:
                self._give_place_on()

    def _take_ticket(self) -> _Ticket | None:
        """Takes a place, or a ticket to wait for one."""
        with self._lock:
            if self._is_draining:
                raise RequestError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The server takes requests until it is told to stop. Received: one after that. "
                    "Ask another server, or this one once it is back.",
                )
            if self.num_running < self._max_concurrency:  # then nobody waits
                self.num_running += 1
                return None
            if len(self._waiting) >= self._max_queue:
                raise RequestError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"The server runs {self._max_concurrency} requests at a time and lets {self._max_queue} wait. Received: "
                    "one more. Send fewer at a time, or raise --max_queue.",
                )
            ticket = _Ticket()
            self._waiting.append(ticket)
            return ticket

    def _wait(self, ticket: _Ticket, context: grpc.ServicerContext) -> None:
        context.add_callback(ticket.called.set)  # The caller has gone: its place in the queue is another's.
        remaining = context.time_remaining()  # No deadline is None or centuries, by gRPC's version.
        ticket.called.wait(None if remaining is None else min(remaining, threading.TIMEOUT_MAX))
        with self._lock:
            if ticket.has_place:
                return
            self._waiting.remove(ticket)
            self._notify_if_empty()
        _check_wanted(context)
        raise _deadline_exceeded()

    def _give_place_on(self) -> None:
        """Hands the place of a request that has ended to the one that waits longest."""
        if self._waiting:
            ticket = self._waiting.popleft()
            ticket.has_place = True
            ticket.called.set()
            return
        self.num_running -= 1
        self._notify_if_empty()

    def _notify_if_empty(self) -> None:
        if not self.num_running and not self._waiting:
            self._emptied.notify_all()

    def drain(self, timeout_seconds: float) -> bool:
        """Refuses new requests and waits until the admitted ones have ended; returns whether they did in time."""
        with self._emptied:
            self._is_draining = True
            return self._emptied.wait_for(lambda: not self.num_running and not self._waiting, timeout_seconds)


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
