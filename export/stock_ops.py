"""Checks that an exported graph needs nothing but stock TensorFlow: no add-on, no Python."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import kernel_def_pb2, op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2


class StockOps(NamedTuple):
    """What TensorFlow's C runtime knows without Python, which is what TensorFlow Serving links.

    Attributes:
        registered: names of operations.
        runnable: those with a kernel for the CPU. `PyFunc` and its like are registered, but their kernels come with Python.
    """

    registered: frozenset[str]
    runnable: frozenset[str]


def check_stock_ops(model_dir: Path) -> None:
    """Raises unless stock TensorFlow can run every operation of a SavedModel, in its main graph and in its function library.

    Args:
        model_dir: the SavedModel.

    Raises:
        ValueError: operations that are not registered in stock TensorFlow, as those of an add-on, or that run in Python alone.
    """
    stock = read_stock_ops()
    op_to_place = dict(_list_ops(model_dir))
    faults = [
        f"{op} in {op_to_place[op]} ({'runs in Python alone' if op in stock.registered else 'not registered'})"
        for op in sorted(op_to_place.keys() - stock.runnable)
    ]
    if faults:
        raise ValueError(
            f"A served graph must hold operations of stock TensorFlow alone, none of which runs in Python. Received: {', '.join(faults)} "
            f"of {model_dir}. Build the model from tf.* operations, without tf.py_function and add-ons."
        )


def _list_ops(model_dir: Path) -> Iterator[tuple[str, str]]:
    """Operations and the place of each, without calls of the model's own functions by their names."""
    model = saved_model_pb2.SavedModel.FromString((model_dir / "saved_model.pb").read_bytes())
    for meta_graph in model.meta_graphs:
        functions = meta_graph.graph_def.library.function
        own_names = {function.signature.name for function in functions}
        places = [("the main graph", meta_graph.graph_def.node)]
        places += [(f"function {function.signature.name!r}", function.node_def) for function in functions]
        for place, nodes in places:
            yield from ((node.op, place) for node in nodes if node.op not in own_names)


@functools.cache
def read_stock_ops() -> StockOps:
    """Asks the C runtime of the installed TensorFlow, in a fresh process: add-ons that this one has loaded have no part in it."""
    (library,) = Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*")
    command = [sys.executable, "-c", _FRESH_PROCESS, str(library)]
    ops, kernels = pickle.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    runnable = (
        kernel.op
        for kernel in kernel_def_pb2.KernelList.FromString(kernels).kernel
        if kernel.device_type in ("CPU", "DEFAULT")
    )
    return StockOps(frozenset(op.name for op in op_def_pb2.OpList.FromString(ops).op), frozenset(runnable))


_FRESH_PROCESS = """
import ctypes, pickle, sys

class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]

library = ctypes.CDLL(sys.argv[1])
library.TF_NewStatus.restype = ctypes.c_void_p
library.TF_GetAllOpList.restype = library.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
library.TF_GetAllRegisteredKernels.argtypes = [ctypes.c_void_p]
buffers = library.TF_GetAllOpList(), library.TF_GetAllRegisteredKernels(library.TF_NewStatus())
pickle.dump([ctypes.string_at(buffer.contents.data, buffer.contents.length) for buffer in buffers], sys.stdout.buffer)
"""
