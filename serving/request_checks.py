"""What a request must satisfy before the model runs: model, version, inputs, dtypes, shapes and output names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import grpc
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import model_pb2

from serving.request_error import RequestError
from serving.tensor_protos import VALUE_FIELDS, dtype_name, format_shape

# A TensorProto of a few bytes may declare terabytes, as its last value stands for all missing ones.
# 2^24 strings or floats are far above any request that this development server is made for.
MAX_TENSOR_ELEMENTS = 1 << 24


def _invalid(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def check_model_spec(model_spec: model_pb2.ModelSpec, model_name: str, version: int) -> None:
    """Raises unless `model_spec` asks for `model_name` and, where it names a version, for `version`.

    Raises:
        RequestError: INVALID_ARGUMENT without a name or with a version label, NOT_FOUND for another model or version.
    """
    if not model_spec.name:
        raise _invalid(f"A request must name its model. Received: an empty model_spec.name. Set it to `{model_name}`.")
    if model_spec.name != model_name:
        raise RequestError(
            grpc.StatusCode.NOT_FOUND,
            f"This server serves the model `{model_name}` only. Received: `{model_spec.name}`. "
            "Correct model_spec.name, or start a server for that model.",
        )
    if model_spec.HasField("version_label"):
        raise _invalid(
            f"This server knows no version labels. Received: `{model_spec.version_label}`. "
            f"Ask for version {version}, or for no version."
        )
    if model_spec.HasField("version") and model_spec.version.value != version:
        raise RequestError(
            grpc.StatusCode.NOT_FOUND,
            f"This server serves version {version} of `{model_name}` only. Received: {model_spec.version.value}. "
            f"Ask for version {version}, or for no version.",
        )


def check_input_names(
    inputs: Mapping[str, tensor_pb2.TensorProto], signature_name: str, signature: meta_graph_pb2.SignatureDef
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless `inputs` are the signature's, where defaults may be left out."""
    missing = sorted(set(signature.inputs) - set(signature.defaults) - set(inputs))
    unknown = sorted(set(inputs) - set(signature.inputs))
    if missing or unknown:
        remedies = [f"add {missing}"] * bool(missing) + [f"remove {unknown}"] * bool(unknown)
        raise _invalid(
            f"Signature `{signature_name}` takes the inputs {sorted(signature.inputs)}. "
            f"Received: {sorted(inputs)}. Please {' and '.join(remedies)}."
        )


def check_input(
    name: str, proto: tensor_pb2.TensorProto, signature_name: str, expected: meta_graph_pb2.TensorInfo
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless dtype, rank, fixed sizes and number of values are as expected."""
    shape = proto.tensor_shape
    rule = (
        f"Input `{name}` of signature `{signature_name}` must be {dtype_name(expected.dtype)} of shape "
        f"{format_shape(expected.tensor_shape)}."
    )
    if proto.dtype != expected.dtype:
        raise _invalid(
            f"{rule} Received: {dtype_name(proto.dtype)} of shape {format_shape(shape)}. "
            f"Send the values as {dtype_name(expected.dtype)}."
        )
    sizes = [dim.size for dim in shape.dim]
    if shape.unknown_rank or min(sizes, default=0) < 0:
        raise _invalid(
            f"{rule} Received: a tensor whose shape {format_shape(shape)} is not fully known. State every size."
        )
    if not _fits(sizes, expected.tensor_shape):
        raise _invalid(f"{rule} Received: shape {format_shape(shape)}. Reshape or pad the values to fit.")
    num_elements = math.prod(sizes)
    if num_elements > MAX_TENSOR_ELEMENTS:
        raise _invalid(
            f"{rule} The local server takes at most {MAX_TENSOR_ELEMENTS} values an input. Received: {num_elements}. "
            "Split the request."
        )
    num_values = len(getattr(proto, VALUE_FIELDS[proto.dtype][0])) if proto.dtype in VALUE_FIELDS else 0
    if num_values > num_elements:
        raise _invalid(
            f"{rule} Received: {num_values} values for the declared shape {format_shape(shape)}, which holds "
            f"{num_elements}. Make the shape fit the values."
        )


def _fits(sizes: Sequence[int], expected: tensor_shape_pb2.TensorShapeProto) -> bool:
    """Whether sizes have the expected rank and fixed sizes, where a negative expected size is any size."""
    if expected.unknown_rank:
        return True
    return len(sizes) == len(expected.dim) and all(
        dim.size < 0 or size == dim.size for size, dim in zip(sizes, expected.dim, strict=True)
    )


def check_output_filter(
    output_filter: Sequence[str], signature_name: str, signature: meta_graph_pb2.SignatureDef
) -> None:
    """Raises RequestError (INVALID_ARGUMENT) unless the wanted outputs exist and none is named twice."""
    unknown = sorted(set(output_filter) - set(signature.outputs))
    if unknown or len(set(output_filter)) != len(output_filter):
        raise _invalid(
            f"output_filter must name outputs of signature `{signature_name}`, each once: "
            f"{sorted(signature.outputs)}. Received: {list(output_filter)}. Correct the names, or leave it empty "
            "for all outputs."
        )
