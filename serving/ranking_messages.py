"""The client's requests and answers as TensorFlow Serving's protocol buffers.

Importing this file takes seconds, as the protocol buffers lie inside the TensorFlow package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.answers import (
    Explanation,
    ModelMetadata,
    Neighbour,
    RankedItem,
    SignatureMetadata,
    TensorMetadata,
    VersionStatus,
)
from serving.tensor_protos import decode_tensor, dtype_name, encode_strings, encode_tensor

RANK_SIGNATURE = "rank_known_user"
EXPLAIN_SIGNATURE = "explain"
PROBABILITIES = "probabilities"
NEIGHBOUR_OUTPUTS = ("neighbour_user", "neighbour_item", "neighbour_time", "neighbour_score", "attention")
NEXT_ITEMS = "neighbour_next_items"
SIGNATURE_DEF_FIELD = "signature_def"
_OWN_INPUTS = frozenset({"user", "candidates", "time"})


def build_predict_request(
    model_name: str, signature_name: str, user: str, items: Sequence[str], time: int, context: Mapping[str, str]
) -> predict_pb2.PredictRequest:
    """Builds the request for one user, so B = 1, and C = len(items) candidates.

    Args:
        model_name: The model's name at the server.
        signature_name: `RANK_SIGNATURE` or `EXPLAIN_SIGNATURE`; the request asks for the outputs that are read.
        user: The user's id.
        items: The candidates' ids, at least one, none of them empty as "" is padding.
        time: As-of time, epoch seconds, UTC.
        context: Context field -> its value.

    Raises:
        ValueError: There are no items or an empty one, or a context field has the name of another input.
    """
    if isinstance(items, str) or not items or "" in items:
        raise ValueError(
            "Items must be a list of at least one id, none of them empty. "
            f"Received: {items!r}. Name the items to be ranked."
        )
    clashes = sorted(_OWN_INPUTS & set(context))
    if clashes:
        raise ValueError(
            f"A context field must not be one of {sorted(_OWN_INPUTS)}. Received: {clashes}. "
            "Pass these as the arguments of the same name."
        )
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature_name
    request.inputs["user"].CopyFrom(encode_strings([user]))  # [B]
    request.inputs["candidates"].CopyFrom(encode_strings([list(items)]))  # [B, C]
    request.inputs["time"].CopyFrom(encode_tensor(np.array([time], np.int64), types_pb2.DT_INT64))  # [B]
    for field, value in context.items():
        request.inputs[field].CopyFrom(encode_strings([value]))  # [B]
    request.output_filter.append(PROBABILITIES)
    if signature_name == EXPLAIN_SIGNATURE:
        request.output_filter.extend([*NEIGHBOUR_OUTPUTS, NEXT_ITEMS])
    return request


def read_ranked_items(response: predict_pb2.PredictResponse, items: Sequence[str]) -> list[RankedItem]:
    """Reads the answer to a rank request for `items`, highest probability first, then in the request's order.

    Raises:
        ValueError: The answer lacks an output, or one has another shape.
    """
    probabilities = _read_output(response, PROBABILITIES, 2, len(items))  # [C]
    ranked = [RankedItem(item, float(p)) for item, p in zip(items, probabilities, strict=True)]
    return sorted(ranked, key=lambda ranked_item: -ranked_item.probability)


def read_explanations(response: predict_pb2.PredictResponse, items: Sequence[str]) -> list[Explanation]:
    """Reads the answer to an explain request for `items`, highest probability first, then in the request's order.

    Neighbours and next items without an id are padding, and left out.

    Raises:
        ValueError: The answer lacks an output, or one has another shape.
    """
    probabilities = _read_output(response, PROBABILITIES, 2, len(items))  # [C]
    columns = [_read_output(response, name, 3, len(items)) for name in NEIGHBOUR_OUTPUTS]  # each [C, K]
    next_items = _read_output(response, NEXT_ITEMS, 4, len(items))  # [C, K, N]
    explanations = []
    for c, item in enumerate(items):
        neighbours = tuple(
            Neighbour(
                user=user.decode(),
                item=neighbour_item.decode(),
                time=int(time),
                score=float(score),
                attention=float(attention),
                next_items=tuple(following.decode() for following in followings if following),
            )
            for user, neighbour_item, time, score, attention, followings in zip(
                *(column[c] for column in columns), next_items[c], strict=True
            )
            if user and neighbour_item
        )
        explanations.append(Explanation(item, float(probabilities[c]), neighbours))
    return sorted(explanations, key=lambda explanation: -explanation.probability)


def _read_output(response: predict_pb2.PredictResponse, name: str, rank: int, num_items: int) -> np.ndarray:
    """Returns the rows of an output, [1, C or more, ...], that belong to the request's items: [C, ...].

    There are more than C where TensorFlow Serving padded the slate to the longest of its batch
    (`pad_variable_length_inputs`): it pads at the end.
    """
    if name not in response.outputs:
        raise ValueError(
            f"The model's answer must have the output `{name}`. Received: {sorted(response.outputs)}. "
            "Serve a model that export.saved_model wrote."
        )
    array = decode_tensor(response.outputs[name])
    if array.ndim != rank or array.shape[0] != 1 or array.shape[1] < num_items:
        raise ValueError(
            f"Output `{name}` must have rank {rank} and begin with [1, {num_items}]. "
            f"Received: shape {list(array.shape)}. Serve a model that export.saved_model wrote."
        )
    return array[0, :num_items]


def read_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> ModelMetadata:
    """Reads the model's signatures, without those that TensorFlow keeps for itself (`__saved_model_init_op`).

    Raises:
        ValueError: The answer has no signatures.
    """
    signature_map = get_model_metadata_pb2.SignatureDefMap()
    if not response.metadata[SIGNATURE_DEF_FIELD].Unpack(signature_map):
        raise ValueError(
            f"The answer must have a SignatureDefMap under `{SIGNATURE_DEF_FIELD}`. "
            f"Received: `{response.metadata[SIGNATURE_DEF_FIELD].type_url}`. Is the address that of TensorFlow Serving?"
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
    statuses = [
        VersionStatus(
            status.version,
            get_model_status_pb2.ModelVersionStatus.State.Name(status.state),
            status.status.error_message,
        )
        for status in response.model_version_status
    ]
    return sorted(statuses, key=lambda status: -status.version)
