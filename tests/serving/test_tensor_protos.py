"""Our TensorProtos against TensorFlow's own conversion."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.tensor_protos import VALUE_FIELDS, decode_tensor, encode_tensor


@pytest.mark.parametrize("dtype", VALUE_FIELDS)
def test_tensorflow_reads_what_we_write_and_the_other_way(dtype):
    values = [[b"a", b"", b"\xff"]] if dtype == types_pb2.DT_STRING else [[1, 0, 1]]
    array = np.array(values, VALUE_FIELDS[dtype][1])
    for shaped in (array, array[0], array[0, 0:1].reshape(()), array[:, :0]):
        np.testing.assert_array_equal(tf.make_ndarray(encode_tensor(shaped, dtype)), shaped)
        theirs = tf.make_tensor_proto(shaped, dtype)
        decoded = decode_tensor(theirs)
        np.testing.assert_array_equal(decoded, shaped)
        assert decoded.dtype == shaped.dtype and decoded.shape == shaped.shape


def test_last_value_stands_for_the_missing_ones():
    proto = encode_tensor(np.array([1.0, 2.0], np.float32), types_pb2.DT_FLOAT)
    proto.tensor_shape.dim[0].size = 4
    assert decode_tensor(proto).tolist() == [1.0, 2.0, 2.0, 2.0] == tf.make_ndarray(proto).tolist()


def test_values_must_fill_the_shape():
    proto = encode_tensor(np.array([1.0, 2.0], np.float32), types_pb2.DT_FLOAT)
    proto.tensor_shape.dim[0].size = 1
    with pytest.raises(ValueError, match=r"shape \[1\] must hold 1 values. Received: 2"):
        decode_tensor(proto)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="Received: complex64"):
        decode_tensor(tensor_pb2.TensorProto(dtype=types_pb2.DT_COMPLEX64))
