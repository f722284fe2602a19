"""What the inputs and outputs of a request must satisfy before the model runs: names, dtypes, shapes and batch sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.request_error import invalid
from serving.request_limits import RequestLimits
from serving.tensor_protos import VALUE_FIELDS, dtype_name, format_shape


def check_input_names(
    inputs: Mapping[str, tensor_pb2.TensorProto], signature_name: str, signature: meta_graph_pb2.SignatureDef
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless `inputs` are the signature's, where defaults may be left out."""
    missing = sorted(set(signature.inputs) - set(signature.defaults) - set(inputs))
    unknown = sorted(set(inputs) - set(signature.inputs))
    if missing or unknown:
        remedies = [f"add {missing}"] * bool(missing) + [f"remove {unknown}"] * bool(unknown)
        raise invalid(
            f"Signature `{signature_name}` takes the inputs {sorted(signature.inputs)}. "
            f"Received: {sorted(inputs)}. Please {' and '.join(remedies)}."
        )


def check_input(
    name: str,
    proto: tensor_pb2.TensorProto,
    signature_name: str,
    expected: meta_graph_pb2.TensorInfo,
    limits: RequestLimits,
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless dtype, rank, fixed sizes and number of values are as expected.

    A TensorProto of a few bytes may declare terabytes, as its last value stands for all missing ones, so the declared
    size has a limit of its own, `limits.max_input_values`.
    """
    shape = proto.tensor_shape
    sizes = [dim.size for dim in shape.dim]
    num_elements = math.prod(sizes)
    num_values = len(getattr(proto, VALUE_FIELDS[proto.dtype][0])) if proto.dtype in VALUE_FIELDS else 0
    if proto.dtype != expected.dtype:
        problem = (
            f"Received: {dtype_name(proto.dtype)} of shape {format_shape(shape)}. "
            f"Send the values as {dtype_name(expected.dtype)}."
        )
    elif shape.unknown_rank or min(sizes, default=0) < 0:
        problem = f"Received: a tensor whose shape {format_shape(shape)} is not fully known. State every size."
    elif not _fits(sizes, expected.tensor_shape):
        problem = f"Received: shape {format_shape(shape)}. Reshape or pad the values to fit."
    elif num_elements > limits.max_input_values:
        problem = (
            f"The local server takes at most {limits.max_input_values} values an input. Received: {num_elements}. "
            "Split the request, or raise --max_input_values."
        )
    elif num_values > num_elements:
        problem = (
            f"Received: {num_values} values for the declared shape {format_shape(shape)}, which holds "
            f"{num_elements}. Make the shape fit the values."
        )
    else:
        return
    raise invalid(
        f"Input `{name}` of signature `{signature_name}` must be {dtype_name(expected.dtype)} of shape "
        f"{format_shape(expected.tensor_shape)}. {problem}"
    )


def _fits(sizes: Sequence[int], expected: tensor_shape_pb2.TensorShapeProto) -> bool:
    """Whether sizes have the expected rank and fixed sizes, where a negative expected size is any size."""
    if expected.unknown_rank:
        return True
    return len(sizes) == len(expected.dim) and all(
        dim.size < 0 or size == dim.size for size, dim in zip(sizes, expected.dim, strict=True)
    )


def check_batch_size(
    inputs: Mapping[str, tensor_pb2.TensorProto],
    signature_name: str,
    signature: meta_graph_pb2.SignatureDef,
    limits: RequestLimits,
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless all inputs that have a batch agree on its size, and it is not too large.

    As when TensorFlow Serving batches, an input's first dimension is its batch, where the signature leaves it open.
    """
    name_to_size = {}
    for name, proto in inputs.items():
        expected = signature.inputs[name].tensor_shape.dim
        if expected and expected[0].size < 0:
            name_to_size[name] = proto.tensor_shape.dim[0].size
    if len(set(name_to_size.values())) > 1:
        raise invalid(
            f"The inputs of signature `{signature_name}` must have the same batch size, their first dimension. "
            f"Received: {dict(sorted(name_to_size.items()))}. Send a row of every input for each request of the batch."
        )
    size = max(name_to_size.values(), default=0)
    if size > limits.max_batch_size:
        raise invalid(
            f"The local server takes batches of at most {limits.max_batch_size}. Received: {size}. "
            "Split the request, or raise --max_batch_size."
        )


def check_output_filter(
    output_filter: Sequence[str], signature_name: str, signature: meta_graph_pb2.SignatureDef
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless the wanted outputs exist and none is named twice."""
    unknown = sorted(set(output_filter) - set(signature.outputs))
    if unknown or len(set(output_filter)) != len(output_filter):
        raise invalid(
            f"output_filter must name outputs of signature `{signature_name}`, each once: "
            f"{sorted(signature.outputs)}. Received: {list(output_filter)}. Correct the names, or leave it empty "
            "for all outputs."
        )
