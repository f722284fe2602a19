"""How the lookup is compiled by numba, and where compiled code is kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit

_FOLDER = Path(__file__).parent
_CONFIG: Any = numba.config  # its settings are made at run time

# Without reference counts, which numba would keep for every array of `Tables` at every step: 2.5 times as fast. What a function
# needs beyond scalars is therefore given to it.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


def compile_function(function: Callable[..., Any]) -> Any:
    """Compiles a function when it is first called, or takes what an earlier process compiled."""
    return _compile(function, **_OPTIONS)


def compile_inline(function: Callable[..., Any]) -> Any:
    """As `compile_function`, and repeats the function's code wherever it is called."""
    return _compile(function, **_OPTIONS, forceinline=True)


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    """Keeps the code in a folder of these very sources: numba looks only at the file that a function stands in, and its code also
    holds constants, layouts and other functions of the files beside it."""
    shared = _CONFIG.CACHE_DIR
    _CONFIG.CACHE_DIR = str(Path(shared or _FOLDER / "__pycache__") / f"lookup-{_hash_sources()}")
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to write to: every process compiles for itself
        return njit(**options)(function)
    finally:
        _CONFIG.CACHE_DIR = shared


def _hash_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
