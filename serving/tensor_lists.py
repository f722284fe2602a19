"""TensorProtos to and from nested lists: what the client needs of them, without NumPy, whose import takes 0.1 seconds."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from serving.published_protos import tensor_pb2, tensor_shape_pb2, types_pb2

# DataType -> (the TensorProto field of its values, the struct format of one in `tensor_content`).
_DECODED = {
    types_pb2.DT_FLOAT: ("float_val", "f"),
    types_pb2.DT_INT64: ("int64_val", "q"),
    types_pb2.DT_STRING: ("string_val", ""),
}


def dtype_name(dtype: int) -> str:
    """The name of a DataType as `tf.DType.name` has it, such as `string` or `float32`."""
    if dtype not in types_pb2.DataType.values():
        return f"unknown dtype {dtype}"
    name = types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()
    return {"half": "float16", "float": "float32", "double": "float64"}.get(name, name)


def format_shape(shape: tensor_shape_pb2.TensorShapeProto) -> str:
    """Writes a shape for people: `[?, 3]`, where ? is any size, or `any shape`."""
    if shape.unknown_rank:
        return "any shape"
    return "[" + ", ".join("?" if dim.size < 0 else str(dim.size) for dim in shape.dim) + "]"


def encode_text(text: str) -> bytes:
    """Encodes a string as UTF-8. Raises ValueError where it has none: a lone surrogate, as of a flag of other bytes."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Ids and values must be Unicode text. Received: {text!r}. Write them in UTF-8, as the log has them."
        ) from error


def encode_strings(values: Sequence[str] | Sequence[Sequence[str]]) -> tensor_pb2.TensorProto:
    """Encodes strings, [B] or [B, C], as a TensorProto of UTF-8 bytes. Raises ValueError as `encode_text` does."""
    shape, flat = _flatten(values)
    return _build(types_pb2.DT_STRING, shape, string_val=[encode_text(text) for text in flat])


def encode_times(values: Sequence[int] | Sequence[Sequence[int]]) -> tensor_pb2.TensorProto:
    """Encodes epoch seconds, [B] or [B, H], as a TensorProto of int64."""
    shape, flat = _flatten(values)
    return _build(types_pb2.DT_INT64, shape, int64_val=flat)


def _flatten(values: Sequence[Any]) -> tuple[list[int], list[Any]]:
    if not values or isinstance(values[0], str | int):
        return [len(values)], list(values)
    return [len(values), len(values[0])], [value for row in values for value in row]


def _build(dtype: int, shape: Sequence[int], **values: Sequence[Any]) -> tensor_pb2.TensorProto:
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), **values)


def decode_lists(proto: tensor_pb2.TensorProto) -> list[Any]:
    """Decodes a TensorProto of rank 1 or more: raw bytes, or typed values, the last of which stands for all missing.

    Returns:
        Lists nested as the declared shape, of floats, integers or bytes.

    Raises:
        ValueError: The dtype is none of float32, int64 and string, or the values do not fill the declared shape.
    """
    if proto.dtype not in _DECODED:
        names = [dtype_name(dtype) for dtype in _DECODED]
        raise ValueError(f"A tensor must be one of {names}. Received: {dtype_name(proto.dtype)}. Cast it in the model.")
    field, code = _DECODED[proto.dtype]
    shape = [dim.size for dim in proto.tensor_shape.dim]
    num_elements = math.prod(shape)
    if proto.tensor_content and code:
        num_values = len(proto.tensor_content) // struct.calcsize(f"<{code}")
        values = list(struct.unpack_from(f"<{num_values}{code}", proto.tensor_content))
    else:
        values = list(getattr(proto, field))
        if values:
            values += values[-1:] * (num_elements - len(values))
    if len(values) != num_elements:
        raise ValueError(
            f"A tensor of shape {format_shape(proto.tensor_shape)} must hold {num_elements} values. "
            f"Received: {len(values)}. Look at how the sender filled it."
        )
    for axis in range(len(shape) - 1, 0, -1):
        size = shape[axis]
        values = [values[row * size : (row + 1) * size] for row in range(math.prod(shape[:axis]))]
    return values
