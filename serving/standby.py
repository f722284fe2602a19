"""The lock by which one of several servers serves, and the others stand by."""

from __future__ import annotations

import os


class StandbyLock:
    """An exclusive lock on a file. Who has it keeps it until its process ends: the kernel frees it then, after SIGKILL too.

    Args:
        path: A file on a local disk. It is made where it is absent, and nothing is written to it. Whoever removes it while a
            server runs gives the next server a lock of its own.

    Raises:
        ValueError: The file cannot be opened, or this system has no such locks.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            import fcntl  # Windows has none.
        except ImportError as error:
            raise ValueError(
                f"--standby_lock needs a system with flock, such as Linux or macOS. Received: {path} on another. "
                "Leave the flag out."
            ) from error
        self._fcntl = fcntl
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ValueError(
                "--standby_lock must be a file that can be opened for writing. "
                f"Received: `{path}` ({error.strerror}). Name a file in a folder that exists."
            ) from error

    def try_acquire(self) -> bool:
        """Takes the lock where nobody has it; returns whether it did."""
        try:
            self._lock(self._fcntl.LOCK_EX | self._fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self) -> None:
        """Waits until nobody else has the lock, and takes it. In the main thread, signal handlers run meanwhile."""
        self._lock(self._fcntl.LOCK_EX)

    def _lock(self, operation: int) -> None:
        try:
            self._fcntl.flock(self._descriptor, operation)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ValueError(
                f"--standby_lock must be a file that can be locked. Received: `{self._path}` ({error.strerror}). "
                "Name a file on a local disk."
            ) from error
