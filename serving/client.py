"""Ask a served model, TensorFlow Serving or `serving.local`, to rank items for a user and to explain the ranking.

python -m serving.client rank --model_name complete_journey --user 1364 --items 940996,862349
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from serving.answers import Explanation, ModelMetadata, RankedItem, VersionStatus

DEFAULT_TARGET = "localhost:8500"
DEFAULT_TIMEOUT_SECONDS = 10.0


class ServingError(ValueError):
    """The server could not be reached, or refused the request; `code` is the name of the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RankingClient:
    """Speaks the gRPC API of TensorFlow Serving to a model that export.saved_model wrote. A context manager.

    Args:
        target: The server's `host:port`.
        model_name: The model's name at the server.
        timeout_seconds: How long to wait for an answer.

    Raises:
        ValueError: The model name is empty, or the timeout is not positive.
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, model_name: str, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        if not model_name:
            raise ValueError("The model name must not be empty. Received: ''. Name the model as the server does.")
        if timeout_seconds <= 0:
            raise ValueError(f"The timeout must be above 0 seconds. Received: {timeout_seconds}. Raise it.")
        # Imported here and below because the protocol buffers import TensorFlow, which takes seconds.
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.target = target
        self.model_name = model_name
        self.timeout_seconds = timeout_seconds
        # An explanation of a long slate is larger than gRPC's default limit of 4 MiB.
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._prediction_service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model_service = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def rank(
        self, user: str, items: Sequence[str], time: int | None = None, context: Mapping[str, str] | None = None
    ) -> list[RankedItem]:
        """Ranks `items` for `user`, highest probability first, using the history in the model's log.

        Args:
            user: The user's id; an unknown one is no error.
            items: The candidates' ids, at least one, none empty; unknown ones are no error.
            time: As-of time, epoch seconds, UTC; now where None.
            context: Context field -> value, for a data set that has context fields.

        Raises:
            ServingError: The server cannot be reached, or refuses the request.
            ValueError: The arguments, or the model's answer, are not as described.
        """
        from serving.ranking_messages import RANK_SIGNATURE, build_predict_request, read_ranked_items

        request = build_predict_request(self.model_name, RANK_SIGNATURE, user, items, _or_now(time), context or {})
        return read_ranked_items(self._call(self._prediction_service.Predict, request), items)

    def explain(
        self, user: str, items: Sequence[str], time: int | None = None, context: Mapping[str, str] | None = None
    ) -> list[Explanation]:
        """Ranks as `rank` does, and shows the neighbours behind each probability. Arguments and errors are the same."""
        from serving.ranking_messages import EXPLAIN_SIGNATURE, build_predict_request, read_explanations

        request = build_predict_request(self.model_name, EXPLAIN_SIGNATURE, user, items, _or_now(time), context or {})
        return read_explanations(self._call(self._prediction_service.Predict, request), items)

    def metadata(self) -> ModelMetadata:
        """Returns the served version and its signatures. Raises ServingError as `rank` does."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        from serving.ranking_messages import SIGNATURE_DEF_FIELD, read_metadata

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURE_DEF_FIELD])
        request.model_spec.name = self.model_name
        return read_metadata(self._call(self._prediction_service.GetModelMetadata, request))

    def status(self) -> list[VersionStatus]:
        """Returns the state of each version, newest first. Raises ServingError as `rank` does."""
        from tensorflow_serving.apis import get_model_status_pb2

        from serving.ranking_messages import read_version_statuses

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model_name
        return read_version_statuses(self._call(self._model_service.GetModelStatus, request))

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        import grpc

        try:
            return method(request, timeout=self.timeout_seconds)
        except grpc.RpcError as error:
            code = error.code()
            details = error.details()
            if code == grpc.StatusCode.UNAVAILABLE:
                message = (
                    f"A model server must listen at {self.target}. Received: no connection ({details}). Start one with "
                    f"`python -m serving.local --model_base_path DIR --model_name {self.model_name}`, "
                    "or name the address of another."
                )
            elif code == grpc.StatusCode.DEADLINE_EXCEEDED:
                message = (
                    f"The server at {self.target} must answer within {self.timeout_seconds:g} seconds. "
                    "Received: nothing. Allow more time, or look at its load."
                )
            else:
                message = f"The server at {self.target} answered {code.name}: {details}"
            raise ServingError(code.name, message) from error


def _or_now(time: int | None) -> int:
    return int(datetime.now(UTC).timestamp()) if time is None else time


def main() -> None:
    """Runs the command line."""
    from serving.client_command import parse_args, run  # It imports this module.

    sys.exit(run(parse_args()))


if __name__ == "__main__":
    main()
