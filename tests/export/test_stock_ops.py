"""The check that an exported graph needs nothing but stock TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.stock_ops import check_stock_ops, read_stock_ops


def save(folder: Path, function: Callable[[tf.Tensor], tf.Tensor]) -> Path:
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def rewrite(folder: Path, change: Callable[[saved_model_pb2.SavedModel], None]) -> None:
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def stock_model(tmp_path: Path) -> Path:
    """Strings, a table, a loop and a call: nothing that stock TensorFlow lacks."""
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)

    @tf.function
    def doubled(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: (2.0 * y,), (x,))[0]

    module = tf.Module()
    module.table = table
    module.serve = tf.function(
        lambda x: doubled(x) + table.lookup(tf.strings.as_string(x)), [tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "stock"), signatures={"serving_default": module.serve})
    return tmp_path / "stock"


def test_stock_operations_pass(stock_model: Path) -> None:
    check_stock_ops(stock_model)


def test_python_is_refused(tmp_path: Path) -> None:
    in_python = save(
        tmp_path / "eager", lambda x: tf.ensure_shape(tf.py_function(lambda y: y + 1.0, [x], tf.float32), [None])
    )
    with pytest.raises(
        ValueError,
        match=r"stock TensorFlow alone.*Received: EagerPyFunc in function '[^']+' \(runs in Python alone\) of .*eager.*without tf.py",
    ):
        check_stock_ops(in_python)
    in_numpy = save(tmp_path / "numpy", lambda x: tf.numpy_function(np.cos, [x], tf.float32, stateful=False))
    with pytest.raises(ValueError, match=r"PyFuncStateless in .* \(runs in Python alone\)"):
        check_stock_ops(in_numpy)


def test_operations_of_an_add_on_are_refused(stock_model: Path) -> None:
    def add(model: saved_model_pb2.SavedModel) -> None:
        graph = model.meta_graphs[0].graph_def
        graph.node.add(name="split", op="WhitespaceTokenizeWithOffsets")
        graph.library.function[0].node_def.add(name="more", op="Addons>Parity")

    rewrite(stock_model, add)
    with pytest.raises(
        ValueError,
        match=r"Addons>Parity in function '[^']+' \(not registered\), WhitespaceTokenizeWithOffsets in the main graph \(not registered\)",
    ):
        check_stock_ops(stock_model)


def test_a_call_of_an_own_function_by_its_name_passes(stock_model: Path) -> None:
    def call(model: saved_model_pb2.SavedModel) -> None:
        graph = model.meta_graphs[0].graph_def
        graph.node.add(name="call", op=graph.library.function[0].signature.name)

    rewrite(stock_model, call)
    check_stock_ops(stock_model)


def test_python_operations_are_registered_in_stock_but_cannot_run() -> None:
    stock = read_stock_ops()
    assert {"MatMul", "StatefulPartitionedCall", "ParseExampleV2", "RestoreV2"} <= stock.runnable < stock.registered
    assert {"PyFunc", "EagerPyFunc", "PyFuncStateless"} <= stock.registered - stock.runnable
