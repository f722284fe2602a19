"""Nested lists as TensorProtos, against TensorFlow's own conversion."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.tensor_lists import decode_lists, dtype_name, encode_strings, encode_times, format_shape


def test_tensorflow_reads_what_we_write():
    strings = tf.make_ndarray(encode_strings([["crème", ""], ["b", "c"], ["d", "e"]]))
    assert strings.tolist() == [["crème".encode(), b""], [b"b", b"c"], [b"d", b"e"]]
    assert tf.make_ndarray(encode_strings(["a"])).tolist() == [b"a"]
    times = tf.make_ndarray(encode_times([[-1, 1 << 40]]))
    assert times.tolist() == [[-1, 1 << 40]] and times.dtype == np.int64
    assert tf.make_ndarray(encode_times([7, 8])).tolist() == [7, 8]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.object_])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (1, 2, 3, 2), (2, 0), (2, 0, 3), (2, 3, 0), (0, 2)])
def test_we_read_what_tensorflow_writes(dtype, shape):
    numbers = np.arange(np.prod(shape)).reshape(shape)
    array = numbers.astype(str).astype("S").astype(object) if dtype == np.object_ else numbers.astype(dtype)
    tensor = tf.make_tensor_proto(array, {np.object_: tf.string}.get(dtype, dtype))  # raw bytes, except for strings
    assert decode_lists(tensor) == array.tolist()
    typed = tensor_pb2.TensorProto(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
    field = {np.float32: "float_val", np.int64: "int64_val", np.object_: "string_val"}[dtype]
    getattr(typed, field).extend(array.ravel().tolist())
    assert decode_lists(typed) == array.tolist()


def test_last_value_stands_for_the_missing_ones():
    tensor = encode_times([1, 2])
    tensor.tensor_shape.dim[0].size = 4
    assert decode_lists(tensor) == [1, 2, 2, 2] == tf.make_ndarray(tensor).tolist()


def test_values_must_fill_the_shape():
    tensor = encode_times([[1, 2, 3]])
    tensor.tensor_shape.dim[1].size = 2
    with pytest.raises(ValueError, match=r"shape \[1, 2\] must hold 2 values. Received: 3"):
        decode_lists(tensor)
    raw = tf.make_tensor_proto([1.0, 2.0])
    raw.tensor_content = raw.tensor_content[:7]
    with pytest.raises(ValueError, match="must hold 2 values. Received: 1"):
        decode_lists(raw)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"one of \['float32', 'int64', 'string'\]. Received: complex64"):
        decode_lists(tensor_pb2.TensorProto(dtype=types_pb2.DT_COMPLEX64))


def test_dtype_names_are_tensorflows():
    for dtype in (types_pb2.DT_STRING, types_pb2.DT_DOUBLE, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16):
        assert dtype_name(dtype) == tf.dtypes.as_dtype(dtype).name
    assert dtype_name(12345) == "unknown dtype 12345"


def test_shapes_for_people():
    assert format_shape(tf.TensorShape([None, 3]).as_proto()) == "[?, 3]"
    assert format_shape(tf.TensorShape(None).as_proto()) == "any shape"
