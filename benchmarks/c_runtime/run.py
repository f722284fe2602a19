"""Runs the compiled rank.c in a process of its own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .request_file import write_request_file


@dataclasses.dataclass(frozen=True)
class CAnswer:
    """What the program printed.

    Attributes:
        values: the output, float32, flat.
        milliseconds: the time of each repeat, float64 [repeats].
    """

    values: np.ndarray
    milliseconds: np.ndarray


def run_c_runner(
    program: Path,
    model_dir: Path,
    signature: str,
    inputs: Mapping[str, np.ndarray],
    *,
    output: str = "probabilities",
    repeats: int = 0,
) -> CAnswer:
    """Asks a signature once for its answer, and then again for the times.

    TensorFlow's own variables TF_NUM_INTRAOP_THREADS and TF_NUM_INTEROP_THREADS set the threads.

    Args:
        program: what `build_c_runner` returned.
        model_dir: the SavedModel.
        signature: its name.
        inputs: input -> values, as `write_request_file` takes them.
        output: the output to return, float32.
        repeats: further runs that are timed.

    Raises:
        ValueError: the request does not fit the signature, or the program fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request"
        write_request_file(request, model_dir, signature, inputs, output)
        command = [str(program), str(model_dir), str(request), str(repeats)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)
        finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if finished.returncode != 0:
        reason = finished.stderr.rpartition("rank: ")[2].strip()
        raise ValueError(
            f"The model must load and run in TensorFlow's C runtime. Received: exit code {finished.returncode} from {model_dir}: {reason}. "
            "Export it again, or ask for what the signature takes."
        )
    values, *times = finished.stdout.splitlines()
    return CAnswer(np.array(values.split(), np.float32), np.array(times, np.float64))
