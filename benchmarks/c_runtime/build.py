"""Compiles rank.c against the C API's headers and libraries in the installed TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import tensorflow as tf

_SOURCE = Path(__file__).with_name("rank.c")
_LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
_FLAGS = ("-std=c11", "-D_POSIX_C_SOURCE=199309L", "-O2", "-Wall", "-Wextra", "-Werror")


def build_c_runner(folder: Path) -> Path:
    """Compiles the program; takes about 10 seconds, most of it in the linker.

    Args:
        folder: where the program goes; it must exist.

    Returns:
        The program, which `run_c_runner` runs.

    Raises:
        ValueError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise ValueError("A C compiler must be there. Received: no `cc` in PATH. Install gcc or clang.")
    library_dir = tf.sysconfig.get_lib()
    program = folder / "rank"
    command = [
        *(compiler, *_FLAGS, f"-I{tf.sysconfig.get_include()}", str(_SOURCE), "-o", str(program)),
        *(f"{library_dir}/{name}" for name in _LIBRARIES),
        f"-Wl,-rpath,{library_dir}",
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise ValueError(
            f"rank.c must compile against TensorFlow {tf.__version__}. Received: {finished.stderr.strip()} "
            "Look for the headers of the C API in the installed package."
        )
    return program
