"""A fault of Beam's local runner that loses rows, kept away from ours."""

import contextlib
from collections.abc import Iterator

from apache_beam.runners.portability.fn_api_runner import worker_handlers


@contextlib.contextmanager
def flushing_by_size_alone() -> Iterator[None]:
    """While the block runs, local workers send what they have written once there is enough of it, and never because a second is over.

    With several threads (`--direct_running_mode=multi_threading`) Beam 2.77 has a thread beside each writer that reads the buffer and
    then clears it, once a second, without a lock: what is written between the two is lost, and nobody is told. Runners of other
    machines do not flush by the clock unless asked to (`--experiments=data_buffer_time_limit_ms=...`).
    """
    limit = worker_handlers.DATA_BUFFER_TIME_LIMIT_MS
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    try:
        yield
    finally:
        worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = limit
