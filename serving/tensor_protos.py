"""TensorProtos to and from NumPy, in the typed value fields that TensorFlow Serving answers with by default."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serving.published_protos import tensor_pb2, types_pb2
from serving.tensor_lists import dtype_name, encode_strings, format_shape

__all__ = ["VALUE_FIELDS", "decode_tensor", "dtype_name", "encode_strings", "encode_tensor", "format_shape"]

# DataType -> (the TensorProto field of its values, the NumPy type of an array of them).
VALUE_FIELDS: dict[int, tuple[str, Any]] = {
    types_pb2.DT_BOOL: ("bool_val", np.bool_),
    types_pb2.DT_DOUBLE: ("double_val", np.float64),
    types_pb2.DT_FLOAT: ("float_val", np.float32),
    types_pb2.DT_INT8: ("int_val", np.int8),
    types_pb2.DT_INT16: ("int_val", np.int16),
    types_pb2.DT_INT32: ("int_val", np.int32),
    types_pb2.DT_INT64: ("int64_val", np.int64),
    types_pb2.DT_STRING: ("string_val", np.object_),
    types_pb2.DT_UINT8: ("int_val", np.uint8),
    types_pb2.DT_UINT16: ("int_val", np.uint16),
    types_pb2.DT_UINT32: ("uint32_val", np.uint32),
    types_pb2.DT_UINT64: ("uint64_val", np.uint64),
}


def encode_tensor(array: np.ndarray, dtype: int) -> tensor_pb2.TensorProto:
    """Encodes an array of any rank as a TensorProto of `dtype`, a key of `VALUE_FIELDS`. Strings are bytes."""
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, VALUE_FIELDS[dtype][0]).extend(array.ravel().tolist())
    return proto


def decode_tensor(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Decodes a TensorProto: raw bytes (`tensor_content`) or typed values, the last of which stands for all missing.

    Returns:
        An array of the declared shape; strings are bytes in an array of objects.

    Raises:
        ValueError: The dtype is not in `VALUE_FIELDS`, or the values do not fill the declared shape.
    """
    if proto.dtype not in VALUE_FIELDS:
        raise ValueError(
            "A tensor must have one of the dtypes "
            f"{[dtype_name(dtype) for dtype in VALUE_FIELDS]}. Received: {dtype_name(proto.dtype)}. "
            "Cast it to one of these in the model."
        )
    field, numpy_dtype = VALUE_FIELDS[proto.dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    num_elements = math.prod(shape)
    if proto.tensor_content and numpy_dtype is not np.object_:
        values = np.frombuffer(proto.tensor_content, dtype=np.dtype(numpy_dtype).newbyteorder("<"))
    else:
        values = np.array(list(getattr(proto, field)), dtype=numpy_dtype)
        if 0 < values.size < num_elements:
            values = np.append(values, np.repeat(values[-1:], num_elements - values.size))
    if values.size != num_elements:
        raise ValueError(
            f"A tensor of shape {format_shape(proto.tensor_shape)} must hold {num_elements} values. "
            f"Received: {values.size}. Look at how the sender filled it."
        )
    return values.reshape(shape)
