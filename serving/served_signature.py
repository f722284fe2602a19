"""One signature of a loaded model: from TensorProtos through its function to TensorProtos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.request_checks import check_batch_size, check_input, check_input_names, check_output_filter
from serving.request_error import RequestError, invalid
from serving.request_limits import RequestLimits
from serving.tensor_protos import VALUE_FIELDS, decode_tensor, dtype_name, encode_tensor, format_shape

# gRPC's status codes and TensorFlow's error codes have the same numbers.
_NUMBER_TO_STATUS = {status.value[0]: status for status in grpc.StatusCode}


class ServedSignature:
    """Runs a signature on checked inputs. It may be called from several threads.

    Args:
        name: The signature's name in requests.
        definition: Its inputs, outputs and defaults.
        function: The concrete function that `tf.saved_model.load` restored for it.
        limits: How much one request may ask for.
    """

    def __init__(
        self, name: str, definition: meta_graph_pb2.SignatureDef, function: Any, limits: RequestLimits
    ) -> None:
        self.name = name
        self.definition = definition
        self._limits = limits
        # Calling the function by keywords binds and checks them in Python, 0.15 ms of a request that was checked already.
        # The atomic function takes the arguments flat: by name, sorted, as tf.nest has them, then what it captured.
        self._call = function.inference_fn.call_preflattened
        self._argument_names = sorted(function.structured_input_signature[1])
        self._captured = list(function.captured_inputs)
        self._function = function  # Keeps the captured resources alive.

    def predict(
        self, inputs: Mapping[str, tensor_pb2.TensorProto], output_filter: Sequence[str] = ()
    ) -> dict[str, tensor_pb2.TensorProto]:
        """Checks the inputs, runs the signature, and returns its outputs.

        Args:
            inputs: A TensorProto for each input that has no default.
            output_filter: The outputs to return; all where it is empty.

        Raises:
            RequestError: The request does not fit the signature, or the model refused its values.
        """
        check_input_names(inputs, self.name, self.definition)
        check_output_filter(output_filter, self.name, self.definition)
        for name, proto in inputs.items():
            check_input(name, proto, self.name, self.definition.inputs[name], self._limits)
        check_batch_size(inputs, self.name, self.definition, self._limits)
        tensors = {name: _decode_input(name, proto) for name, proto in {**self.definition.defaults, **inputs}.items()}
        outputs = self.run(tensors)
        return {name: _encode_output(outputs[name]) for name in output_filter or self.definition.outputs}

    def run(self, tensors: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Runs the signature on a tensor for each input; returns its outputs.

        Raises:
            RequestError: The model refused the values.
        """
        try:
            return self._call([*(tensors[name] for name in self._argument_names), *self._captured])
        except tf.errors.OpError as error:
            code = _NUMBER_TO_STATUS.get(error.error_code, grpc.StatusCode.UNKNOWN)
            reason = error.message
            raise RequestError(code, f"Signature `{self.name}` failed on the values it received: {reason}") from error
        except UnicodeDecodeError as error:  # TensorFlow's message quotes an id, whose bytes are no text.
            reason = bytes(error.object).decode(errors="backslashreplace")
            raise invalid(f"Signature `{self.name}` failed on the values it received: {reason}") from error


def _decode_input(name: str, proto: tensor_pb2.TensorProto) -> tf.Tensor:
    """Decodes with NumPy, twice as fast as TensorFlow's own parsing, which is for what NumPy does not have."""
    try:
        if proto.dtype in VALUE_FIELDS and not (proto.dtype == types_pb2.DT_STRING and proto.tensor_content):
            return tf.constant(decode_tensor(proto), tf.dtypes.as_dtype(proto.dtype))
        return tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(proto.dtype))
    except (ValueError, OverflowError, tf.errors.InvalidArgumentError) as error:
        raise invalid(
            f"Input `{name}` must be a TensorProto whose values fill its shape. Received: one of "
            f"{dtype_name(proto.dtype)} and shape {format_shape(proto.tensor_shape)} that cannot be decoded. "
            "Fill the value field of its dtype, or tensor_content, with all values."
        ) from error


def _encode_output(tensor: tf.Tensor) -> tensor_pb2.TensorProto:
    dtype = tensor.dtype.as_datatype_enum
    if dtype in VALUE_FIELDS:
        return encode_tensor(np.asarray(tensor.numpy()), dtype)
    return tf.make_tensor_proto(tensor)
