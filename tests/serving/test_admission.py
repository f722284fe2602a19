from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest

from serving.admission import Admission
from serving.request_error import RequestError


class Caller:
    """What a request's context says of its caller."""

    def __init__(self, seconds: float | None = None, is_active: bool = True) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._is_active = is_active

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def is_active(self) -> bool:
        return self._is_active

    def add_callback(self, callback) -> bool:
        self._callback = callback
        return True

    def leave(self) -> None:
        self._is_active = False
        self._callback()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_bounded_number_runs_in_the_order_of_arrival():
    admission = Admission(max_concurrency=1, max_queue=2)
    order = []

    def ask(number: int) -> None:
        with admission.admit(Caller()):
            order.append(number)

    with admission.admit(Caller()):
        waiting = []
        for number in range(2):
            waiting.append(threading.Thread(target=ask, args=(number,)))
            waiting[-1].start()
            wait_until(lambda number=number: admission.num_waiting == number + 1)
        began = time.monotonic()
        with pytest.raises(RequestError, match="runs 1 requests at a time and lets 2 wait") as refused:
            ask(2)
        assert refused.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert time.monotonic() - began < 0.5
        assert order == []
    for thread in waiting:
        thread.join(5)
    assert order == [0, 1]
    assert (admission.num_running, admission.num_waiting) == (0, 0)


@pytest.mark.parametrize(
    ("caller", "code"),
    [
        (Caller(seconds=0), grpc.StatusCode.DEADLINE_EXCEEDED),
        (Caller(is_active=False), grpc.StatusCode.CANCELLED),
    ],
)
def test_request_that_nobody_waits_for_is_not_run(caller, code):
    admission = Admission(max_concurrency=1, max_queue=0)
    with pytest.raises(RequestError) as refused, admission.admit(caller):
        pytest.fail("It ran.")
    assert refused.value.code == code
    with admission.admit(Caller()):
        assert admission.num_running == 1  # Its place is free again.


def test_deadline_ends_the_wait():
    admission = Admission(max_concurrency=1, max_queue=1)
    with admission.admit(Caller()):
        with pytest.raises(RequestError) as refused, admission.admit(Caller(seconds=0.05)):
            pytest.fail("It ran.")
    assert refused.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert admission.num_waiting == 0


def test_newcomers_do_not_overtake_those_who_wait():
    admission = Admission(max_concurrency=1, max_queue=40)
    is_over = threading.Event()
    admitted = []

    def ask_again_and_again() -> None:
        while not is_over.is_set():
            with admission.admit(Caller()):
                admitted.append(1)

    busy = [threading.Thread(target=ask_again_and_again) for _ in range(8)]
    for thread in busy:
        thread.start()
    wait_until(lambda: len(admitted) > 100)
    overtakers = []
    for _ in range(20):
        with admission.admit(Caller()):
            overtakers.append(len(admitted))
    is_over.set()
    for thread in busy:
        thread.join(5)
    assert np.median(np.diff(overtakers)) <= 8  # each of the others once at most, before its next turn


def test_caller_that_leaves_frees_its_place_in_the_queue():
    admission = Admission(max_concurrency=1, max_queue=1)
    caller, codes = Caller(), []

    def ask() -> None:
        try:
            with admission.admit(caller):
                codes.append(None)
        except RequestError as error:
            codes.append(error.code)

    with admission.admit(Caller()):
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: admission.num_waiting == 1)
        caller.leave()
        wait_until(lambda: admission.num_waiting == 0)
    thread.join(5)
    assert codes == [grpc.StatusCode.CANCELLED]
    with admission.admit(Caller()):
        assert admission.num_running == 1


def test_draining_refuses_new_requests_and_waits_for_admitted_ones():
    admission = Admission(max_concurrency=1, max_queue=1)
    with admission.admit(Caller()):
        assert not admission.drain(timeout_seconds=0.01)
        with pytest.raises(RequestError) as refused, admission.admit(Caller()):
            pytest.fail("It ran.")
        assert refused.value.code == grpc.StatusCode.UNAVAILABLE
    assert admission.drain(timeout_seconds=0)


def test_many_threads_never_exceed_the_bound():
    admission = Admission(max_concurrency=3, max_queue=100)
    most = []

    def ask() -> None:
        for _ in range(50):
            with admission.admit(Caller()):
                most.append(admission.num_running)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 800
    assert max(most) <= 3
