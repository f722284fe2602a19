"""The client's slates and their answers as TensorFlow Serving's PredictRequest and PredictResponse.

Slates of one request are padded at the end to the longest, [B, C]; so are histories, [B, H]. Padding is "" and 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from serving.answers import Explanation, Neighbour, RankedItem, Reason
from serving.published_protos import predict_pb2, tensor_pb2, types_pb2
from serving.rank_request import HistoryInteraction, RankRequest
from serving.tensor_lists import decode_lists, dtype_name, encode_strings, encode_times

RANK_SIGNATURE = "rank"
RANK_KNOWN_USER_SIGNATURE = "rank_known_user"
EXPLAIN_SIGNATURE = "explain"
_PROBABILITIES = "probabilities"
_NEIGHBOUR_OUTPUTS = ("neighbour_user", "neighbour_item", "neighbour_time", "neighbour_score", "attention")
_NEXT_ITEMS = "neighbour_next_items"
_REASON_OUTPUTS = ("because_item", "because_went_on", "because_times")  # of a model with tables of transitions
_OUTPUTS = {  # name -> (rank, dtype)
    _PROBABILITIES: (2, types_pb2.DT_FLOAT),
    "neighbour_user": (3, types_pb2.DT_STRING),
    "neighbour_item": (3, types_pb2.DT_STRING),
    "neighbour_time": (3, types_pb2.DT_INT64),
    "neighbour_score": (3, types_pb2.DT_FLOAT),
    "attention": (3, types_pb2.DT_FLOAT),
    _NEXT_ITEMS: (4, types_pb2.DT_STRING),
    "because_item": (3, types_pb2.DT_STRING),
    "because_went_on": (3, types_pb2.DT_INT64),
    "because_times": (3, types_pb2.DT_INT64),
}
_SLATE_INPUTS = frozenset({"user", "candidates", "time"})
_HISTORY = "history_"
_HISTORY_INPUTS = frozenset({"history_items", "history_behaviours", "history_times"})


def build_predict_request(
    model_name: str,
    signature_name: str,
    requests: Sequence[RankRequest],
    input_names: Collection[str],
    now: int,
    output_names: Collection[str] = (),
) -> predict_pb2.PredictRequest:
    """Builds one request for B = len(requests) slates, which asks for the outputs that are read.

    Args:
        model_name: The model's name at the server.
        signature_name: `RANK_SIGNATURE`, `RANK_KNOWN_USER_SIGNATURE` or `EXPLAIN_SIGNATURE`.
        requests: At least one; those for `RANK_SIGNATURE` without a history send an empty one.
        input_names: The inputs that the model's signature has. All are sent, "" where a request says nothing.
        now: The as-of time, epoch seconds, of requests that have none.
        output_names: The outputs that the signature has; of those that only some models have, these are asked for.

    Raises:
        ValueError: A request names a context field or an attribute that the signature does not have.
    """
    fields = set(input_names) - _SLATE_INPUTS - _HISTORY_INPUTS
    has_history = signature_name == RANK_SIGNATURE
    contexts = {field for field in fields if _HISTORY + field in fields} if has_history else fields
    attributes = {field for field in fields - contexts if not field.startswith(_HISTORY)}
    for request in requests:
        _check_names("A context", request.context, contexts)
        _check_names("User attributes", request.user_attributes, attributes)
        for interaction in request.history or ():
            _check_names("An interaction's context", interaction.context, contexts)
    times = [now if request.time is None else request.time for request in requests]
    inputs = {
        "user": encode_strings([request.user for request in requests]),  # [B]
        "candidates": encode_strings(_pad([request.items for request in requests], "")),  # [B, C]
        "time": encode_times(times),  # [B]
    }
    for field in contexts:
        inputs[field] = encode_strings([request.context.get(field, "") for request in requests])  # [B]
    for field in attributes:
        inputs[field] = encode_strings([request.user_attributes.get(field, "") for request in requests])  # [B]
    if has_history:
        inputs |= _build_history_inputs([request.history or () for request in requests], contexts)
    message = predict_pb2.PredictRequest(inputs=inputs, output_filter=[_PROBABILITIES])
    message.model_spec.name = model_name
    message.model_spec.signature_name = signature_name
    if signature_name == EXPLAIN_SIGNATURE:
        reasons = _REASON_OUTPUTS if set(_REASON_OUTPUTS) <= set(output_names) else ()
        message.output_filter.extend([*_NEIGHBOUR_OUTPUTS, _NEXT_ITEMS, *reasons])
    return message


def _check_names(what: str, values: Mapping[str, str], known: Collection[str]) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"{what} must have no field but the signature's, {sorted(known)}. Received: {unknown}. "
            "The command `metadata` lists the inputs of the model's signatures."
        )


def _build_history_inputs(
    histories: Sequence[Sequence[HistoryInteraction]], contexts: Collection[str]
) -> dict[str, tensor_pb2.TensorProto]:
    times = _pad([[interaction.time for interaction in history] for history in histories], 0)
    inputs = {
        "history_items": _encode_padded([[interaction.item for interaction in history] for history in histories]),
        "history_behaviours": _encode_padded(
            [[interaction.behaviour for interaction in history] for history in histories]
        ),
        "history_times": encode_times(times),
    }  # each [B, H]
    for field in contexts:
        inputs[_HISTORY + field] = _encode_padded(
            [[interaction.context.get(field, "") for interaction in history] for history in histories]
        )
    return inputs


def _encode_padded(rows: Sequence[Sequence[str]]) -> tensor_pb2.TensorProto:
    return encode_strings(_pad(rows, ""))


def _pad(rows: Sequence[Sequence[Any]], padding: str | int) -> list[list[Any]]:
    """Fills each row at its end to the longest, or to 1 where all are empty, so that every batch has one width."""
    width = max(1, *map(len, rows))
    return [[*row, *[padding] * (width - len(row))] for row in rows]


def read_ranked_items(response: predict_pb2.PredictResponse, requests: Sequence[RankRequest]) -> list[list[RankedItem]]:
    """Reads the answer to `requests`: of each, its items, highest probability first, then in the request's order.

    Raises:
        ValueError: The answer lacks an output, or one has another shape.
    """
    probabilities = _read_output(response, _PROBABILITIES, requests)  # [B, C]
    return [
        sorted(
            (RankedItem(item, p) for item, p in zip(request.items, row, strict=False)),  # without padding
            key=lambda ranked_item: -ranked_item.probability,
        )
        for request, row in zip(requests, probabilities, strict=True)
    ]


def read_explanations(response: predict_pb2.PredictResponse, request: RankRequest) -> list[Explanation]:
    """Reads the answer to an explain request, highest probability first, then in the request's order.

    Neighbours, next items and reasons without an id are padding, and left out. Bytes that are no UTF-8 become U+FFFD.

    Raises:
        ValueError: The answer lacks an output, or one has another shape.
    """
    probabilities = _read_output(response, _PROBABILITIES, [request])[0]  # [C]
    columns = [_read_output(response, name, [request])[0] for name in _NEIGHBOUR_OUTPUTS]  # each [C, K]
    next_items = _read_output(response, _NEXT_ITEMS, [request])[0]  # [C, K, N]
    has_reasons = all(name in response.outputs for name in _REASON_OUTPUTS)
    because = [_read_output(response, name, [request])[0] for name in _REASON_OUTPUTS] if has_reasons else []
    explanations = []
    for c, item in enumerate(request.items):
        neighbours = tuple(
            Neighbour(
                user=user.decode(errors="replace"),
                item=neighbour_item.decode(errors="replace"),
                time=time,
                score=score,
                attention=attention,
                next_items=tuple(following.decode(errors="replace") for following in followings if following),
            )
            for user, neighbour_item, time, score, attention, followings in zip(
                *(column[c] for column in columns), next_items[c], strict=True
            )
            if user and neighbour_item
        )
        reasons = tuple(
            Reason(name.decode(errors="replace"), went_on, times)
            for name, went_on, times in zip(*(column[c] for column in because), strict=True)
            if name
        )
        explanations.append(Explanation(item, probabilities[c], neighbours, reasons))
    return sorted(explanations, key=lambda explanation: -explanation.probability)


def _read_output(response: predict_pb2.PredictResponse, name: str, requests: Sequence[RankRequest]) -> list[Any]:
    """Returns an output, [B, C or more, ...].

    There are more than C where TensorFlow Serving padded the slates to the longest of its batch
    (`pad_variable_length_inputs`): it pads at the end.
    """
    if name not in response.outputs:
        raise ValueError(
            f"The model's answer must have the output `{name}`. Received: {sorted(response.outputs)}. "
            "Serve a model that export.saved_model wrote."
        )
    tensor = response.outputs[name]
    rank, dtype = _OUTPUTS[name]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    num_items = max(len(request.items) for request in requests)
    if tensor.dtype != dtype or len(shape) != rank or shape[0] != len(requests) or shape[1] < num_items:
        raise ValueError(
            f"Output `{name}` must be {dtype_name(dtype)}, have rank {rank} and begin with [{len(requests)}, {num_items}]. "
            f"Received: {dtype_name(tensor.dtype)}, shape {shape}. Serve a model that export.saved_model wrote."
        )
    return decode_lists(tensor)
