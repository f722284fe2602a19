"""One request of the fuzzer. Imports no TensorFlow."""

from __future__ import annotations

from typing import NamedTuple

from serving.published_protos import predict_pb2

OK = frozenset({"OK"})
INVALID = frozenset({"INVALID_ARGUMENT"})
NOT_FOUND = frozenset({"NOT_FOUND"})
TOO_LARGE = frozenset({"RESOURCE_EXHAUSTED"})


class Case(NamedTuple):
    """One request.

    Attributes:
        kind: what is wrong with it.
        method: of PredictionService.
        data: the message.
        expected: names of the gRPC statuses that are right.
    """

    kind: str
    method: str
    data: bytes
    expected: frozenset[str]


def predict_case(request: predict_pb2.PredictRequest, expected: frozenset[str]) -> Case:
    """A case of Predict whose kind is named later."""
    return Case("", "Predict", request.SerializeToString(), expected)
