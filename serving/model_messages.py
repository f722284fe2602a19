"""What a server says of its models, read from TensorFlow Serving's protocol buffers."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from serving.answers import ModelMetadata, SignatureMetadata, TensorMetadata, VersionStatus
from serving.published_protos import get_model_metadata_pb2, get_model_status_pb2, meta_graph_pb2
from serving.tensor_lists import dtype_name

SIGNATURE_DEF_FIELD = "signature_def"


def read_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> ModelMetadata:
    """Reads the model's signatures, without those that TensorFlow keeps for itself (`__saved_model_init_op`).

    Raises:
        ValueError: The answer has no signatures that can be read.
    """
    packed = response.metadata[SIGNATURE_DEF_FIELD]
    signature_map = get_model_metadata_pb2.SignatureDefMap()
    try:
        is_map = packed.Unpack(signature_map)
    except DecodeError:  # Also where a name is no UTF-8.
        is_map = False
    if not is_map:
        raise ValueError(
            f"The answer must have a SignatureDefMap under `{SIGNATURE_DEF_FIELD}`. "
            f"Received: {len(packed.value)} bytes of `{packed.type_url}`. Is the address that of TensorFlow Serving?"
        )
    signatures = {
        name: SignatureMetadata(_read_tensor_infos(signature.inputs), _read_tensor_infos(signature.outputs))
        for name, signature in sorted(signature_map.signature_def.items())
        if not name.startswith("__")
    }
    return ModelMetadata(response.model_spec.name, response.model_spec.version.value, signatures)


def _read_tensor_infos(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorMetadata]:
    return {
        name: TensorMetadata(
            dtype_name(info.dtype),
            None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    }


def read_version_statuses(response: get_model_status_pb2.GetModelStatusResponse) -> list[VersionStatus]:
    """Reads the state of every version, newest first."""
    state_names = get_model_status_pb2.ModelVersionStatus.State.DESCRIPTOR.values_by_number
    statuses = [
        VersionStatus(
            status.version,
            state_names[status.state].name if status.state in state_names else f"unknown state {status.state}",
            status.status.error_message,
        )
        for status in response.model_version_status
    ]
    return sorted(statuses, key=lambda status: -status.version)
