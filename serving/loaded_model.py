"""One version of a SavedModel in memory: its signatures, and Predict on TensorProtos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.model_versions import SAVED_MODEL_FILE
from serving.request_checks import check_input, check_input_names, check_output_filter
from serving.request_error import RequestError
from serving.tensor_protos import VALUE_FIELDS, dtype_name, encode_tensor, format_shape

SERVE_TAG = "serve"
# gRPC's status codes and TensorFlow's error codes have the same numbers.
_NUMBER_TO_STATUS = {status.value[0]: status for status in grpc.StatusCode}


class LoadedModel:
    """A SavedModel that answers Predict requests. It may be called from several threads.

    Args:
        name: The model's name in requests.
        version: The number of the version folder.
        path: The version folder, which holds a `saved_model.pb`.

    Raises:
        ValueError: The folder holds no SavedModel that TensorFlow can load for serving.
    """

    def __init__(self, name: str, version: int, path: Path) -> None:
        self.name = name
        self.version = version
        self.signature_defs = read_signature_defs(path)
        try:
            self._saved_model = tf.saved_model.load(str(path), tags=[SERVE_TAG])
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(
                f"A version folder must hold a SavedModel that TensorFlow can load. Received: {path}: {error}. "
                "Export the model again."
            ) from error
        self._functions: Mapping[str, Any] = self._saved_model.signatures

    def predict(
        self, signature_name: str, inputs: Mapping[str, tensor_pb2.TensorProto], output_filter: Sequence[str] = ()
    ) -> dict[str, tensor_pb2.TensorProto]:
        """Checks the inputs against the signature, runs it, and returns its outputs.

        Args:
            signature_name: A key of `signature_defs`.
            inputs: A TensorProto for each input of the signature.
            output_filter: The outputs to return; all where it is empty.

        Returns:
            A TensorProto for each output.

        Raises:
            RequestError: The request does not fit the signature, or the model refused its values.
        """
        if signature_name not in self._functions:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Model `{self.name}` has the signatures {sorted(self._functions)}. Received: `{signature_name}`. "
                "Correct model_spec.signature_name.",
            )
        signature = self.signature_defs[signature_name]
        check_input_names(inputs, signature_name, signature)
        check_output_filter(output_filter, signature_name, signature)
        for name, proto in inputs.items():
            check_input(name, proto, signature_name, signature.inputs[name])
        tensors = {name: _decode_input(name, proto) for name, proto in {**signature.defaults, **inputs}.items()}
        try:
            outputs = self._functions[signature_name](**tensors)
        except tf.errors.OpError as error:
            raise RequestError(
                _NUMBER_TO_STATUS.get(error.error_code, grpc.StatusCode.UNKNOWN),
                f"Signature `{signature_name}` failed on the values it received: {error.message}",
            ) from error
        return {name: _encode_output(outputs[name]) for name in output_filter or signature.outputs}


def read_signature_defs(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    """Reads the SignatureDefs of a SavedModel's serving graph as they were written, TensorFlow's own included.

    Raises:
        ValueError: The file cannot be parsed, or it has no graph for serving.
    """
    saved_model = saved_model_pb2.SavedModel()
    file = path / SAVED_MODEL_FILE
    try:
        saved_model.ParseFromString(file.read_bytes())
    except (DecodeError, OSError) as error:
        raise ValueError(
            f"{SAVED_MODEL_FILE} must be a SavedModel protocol buffer. Received: {file}: {error}. "
            "Export the model again."
        ) from error
    for graph in saved_model.meta_graphs:
        if SERVE_TAG in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    tags = [list(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    raise ValueError(
        f"A SavedModel must have a graph with the tag `{SERVE_TAG}`. Received: {file} with the tags {tags}. "
        "Export it with tf.saved_model.save."
    )


def _decode_input(name: str, proto: tensor_pb2.TensorProto) -> tf.Tensor:
    """Decodes as TensorFlow Serving does, in TensorFlow itself."""
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(proto.dtype))
    except tf.errors.InvalidArgumentError as error:
        raise RequestError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Input `{name}` must be a TensorProto whose values fill its shape. Received: one of "
            f"{dtype_name(proto.dtype)} and shape {format_shape(proto.tensor_shape)} that cannot be decoded. "
            "Fill the value field of its dtype, or tensor_content, with all values.",
        ) from error


def _encode_output(tensor: tf.Tensor) -> tensor_pb2.TensorProto:
    dtype = tensor.dtype.as_datatype_enum
    if dtype in VALUE_FIELDS:
        return encode_tensor(np.asarray(tensor.numpy()), dtype)
    return tf.make_tensor_proto(tensor)
