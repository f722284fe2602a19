"""The request that rank.c reads: tensors by the names that the graph has for them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2


def write_request_file(
    path: Path, model_dir: Path, signature: str, inputs: Mapping[str, np.ndarray], output: str = "probabilities"
) -> None:
    """Writes one request to a signature.

    Integers are int64 of this machine's byte order; a text is its length and its bytes. The file holds the number of inputs; for each of
    them a tensor's name (an operation as text, the number of its output), its dtype (TF_DataType), the number of dimensions, the
    dimensions, and the values (texts, or plain bytes); and at the end the name of the output's tensor.

    Args:
        path: the file.
        model_dir: the SavedModel.
        signature: its name.
        inputs: input -> values, of the dtype that the signature declares, or str or bytes for strings.
        output: the output to print, float32.

    Raises:
        ValueError: the model has no such signature, or it has other inputs or outputs.
    """
    definition = _read_signature(model_dir, signature)
    if set(inputs) != set(definition.inputs):
        raise ValueError(
            f"A request must bring the inputs of signature {signature!r}: {sorted(definition.inputs)}. Received: {sorted(inputs)}. "
            "Add or drop inputs."
        )
    if output not in definition.outputs:
        raise ValueError(
            f"The output must be one of signature {signature!r}: {sorted(definition.outputs)}. Received: {output!r}. Choose one of them."
        )
    parts = [_pack(len(inputs))]
    for name, values in inputs.items():
        parts += [_encode_tensor_name(definition.inputs[name].name)]
        parts += _encode_tensor(values, tf.as_dtype(definition.inputs[name].dtype))
    path.write_bytes(b"".join([*parts, _encode_tensor_name(definition.outputs[output].name)]))


def _read_signature(model_dir: Path, signature: str) -> meta_graph_pb2.SignatureDef:
    model = saved_model_pb2.SavedModel.FromString((model_dir / "saved_model.pb").read_bytes())
    signatures = model.meta_graphs[0].signature_def
    if signature not in signatures:
        raise ValueError(
            f"The signature must be one of the model: {sorted(signatures)}. Received: {signature!r}. Choose one of them."
        )
    return signatures[signature]


def _pack(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}q", *numbers)


def _encode_text(text: str | bytes) -> bytes:
    data = tf.compat.as_bytes(text)
    return _pack(len(data)) + data


def _encode_tensor_name(name: str) -> bytes:
    operation, _, index = name.partition(":")
    return _encode_text(operation) + _pack(int(index))


def _encode_tensor(values: np.ndarray, dtype: tf.DType) -> Iterator[bytes]:
    yield _pack(dtype.as_datatype_enum, values.ndim, *values.shape)
    if dtype == tf.string:
        yield from map(_encode_text, values.ravel().tolist())
    else:
        yield np.ascontiguousarray(values, dtype.as_numpy_dtype).tobytes()
