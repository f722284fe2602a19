"""Ask a served model, TensorFlow Serving or `serving.local`, to rank items for a user and to explain the ranking.

python -m serving.client rank --model_name complete_journey --user 1364 --items 940996,862349
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from time import time as epoch_seconds
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.answers import (
    Explanation,
    ModelMetadata,
    PairProbability,
    RankedItem,
    ServiceHealth,
    SignatureMetadata,
    VersionStatus,
)
from serving.channel import MAX_ATTEMPTS, TlsFiles, open_channel
from serving.model_messages import SIGNATURE_DEF_FIELD, read_metadata, read_version_statuses
from serving.pair_messages import (
    CLASSIFY_SIGNATURE,
    REGRESS_SIGNATURE,
    build_examples,
    read_classifications,
    read_regressions,
)
from serving.published_protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from serving.rank_request import RankRequest, UserItemPair
from serving.ranking_messages import (
    EXPLAIN_SIGNATURE,
    RANK_KNOWN_USER_SIGNATURE,
    RANK_SIGNATURE,
    build_predict_request,
    read_explanations,
    read_ranked_items,
)

DEFAULT_TARGET = "localhost:8500"
DEFAULT_TIMEOUT_SECONDS = 10.0


class ServingError(ValueError):
    """The server could not be reached, or refused the request; `code` is the name of the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RankingClient:
    """Speaks the gRPC API of TensorFlow Serving to a model that export.saved_model wrote. A context manager.

    Keep one client and share it among threads: it has one connection, and learns the inputs of the model's signatures
    once, so its first ranking makes one call more. A call is tried up to 5 times within its timeout where the server is
    UNAVAILABLE, and once otherwise.

    Args:
        target: The server's `host:port`.
        model_name: The model's name at the server.
        timeout_seconds: How long each method may take, its retries and waits included.
        tls: The files of a connection under TLS; where None, the connection is not encrypted.

    Raises:
        ValueError: The model name is empty, the timeout is not positive, or a TLS file cannot be read.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        model_name: str,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        tls: TlsFiles | None = None,
    ) -> None:
        if not model_name:
            raise ValueError("The model name must not be empty. Received: ''. Name the model as the server does.")
        if not timeout_seconds > 0:
            raise ValueError(f"The timeout must be above 0 seconds. Received: {timeout_seconds}. Raise it.")
        self.target = target
        self.model_name = model_name
        self.timeout_seconds = timeout_seconds
        self._channel = open_channel(target, tls)
        self._prediction_service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model_service = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._health_service = health_pb2_grpc.HealthStub(self._channel)
        self._served: ModelMetadata | None = None

    def rank(self, request: RankRequest) -> list[RankedItem]:
        """Ranks the items of a request, highest probability first, then in the request's order.

        Asks the signature `rank` where the request brings a history or attributes of the user, and `rank_known_user`,
        which uses the history in the model's log, where it does not.

        Raises:
            ServingError: The server cannot be reached, or refuses the request.
            ValueError: The request does not fit the model's signature, or the model's answer is none of it.
        """
        return self.rank_slates([request])[0]

    def rank_slates(self, requests: Sequence[RankRequest]) -> list[list[RankedItem]]:
        """Ranks several requests, as `rank` does each, in one call. Slates and histories may differ in length.

        Raises:
            ServingError: The server cannot be reached, or refuses the requests.
            ValueError: As of `rank`; there are no requests; or only some of them bring a history or attributes.
        """
        num_bringing = sum(request.brings_user for request in requests)
        if not requests or num_bringing not in (0, len(requests)):
            raise ValueError(
                "Requests of one call must be at least one, and all or none must bring a history or user attributes. "
                f"Received: {len(requests)}, of which {num_bringing} do. Make a call for each kind."
            )
        signature_name = RANK_SIGNATURE if num_bringing else RANK_KNOWN_USER_SIGNATURE
        return read_ranked_items(self._predict(signature_name, requests), requests)

    def explain(self, request: RankRequest) -> list[Explanation]:
        """Ranks as `rank` does, with the history in the model's log, and shows what is behind each probability.

        Raises:
            ServingError: The server cannot be reached, or refuses the request.
            ValueError: As of `rank`, or the request brings a history or user attributes.
        """
        if request.brings_user:
            raise ValueError(
                "A request to be explained must not bring a history or user attributes, as the signature `explain` "
                f"has no such inputs. Received: one for user {request.user!r}. Leave them out."
            )
        return read_explanations(self._predict(EXPLAIN_SIGNATURE, [request]), request)

    def classify(self, pairs: Sequence[UserItemPair]) -> list[PairProbability]:
        """Returns the probability of each pair, in their order, by one call of Classify.

        Raises:
            ServingError: The server cannot be reached, or refuses the request.
            ValueError: There are no pairs, or the model's answer is none of `classify`.
        """
        request = classification_pb2.ClassificationRequest(
            model_spec=self._model_spec(CLASSIFY_SIGNATURE), input=build_examples(pairs, _now())
        )
        return read_classifications(self._call(self._prediction_service.Classify, request), pairs)

    def regress(self, pairs: Sequence[UserItemPair]) -> list[PairProbability]:
        """Returns the probability of each pair, in their order, by one call of Regress. Errors are as of `classify`."""
        request = regression_pb2.RegressionRequest(
            model_spec=self._model_spec(REGRESS_SIGNATURE), input=build_examples(pairs, _now())
        )
        return read_regressions(self._call(self._prediction_service.Regress, request), pairs)

    def metadata(self) -> ModelMetadata:
        """Returns the served version and its signatures. Raises ServingError as `rank` does."""
        return self._read_metadata(self._deadline())

    def status(self) -> list[VersionStatus]:
        """Returns the state of each version, newest first. Raises ServingError as `rank` does."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._model_spec())
        return read_version_statuses(self._call(self._model_service.GetModelStatus, request))

    def health(self, service: str = "") -> ServiceHealth:
        """Returns the state of a gRPC service of the server, "" for all of it, by gRPC's health protocol.

        TensorFlow Serving answers where it runs with `--enable_grpc_healthcheck_service`. Raises ServingError as
        `rank` does, with the code NOT_FOUND for a service that the server does not know.
        """
        response = self._call(self._health_service.Check, health_pb2.HealthCheckRequest(service=service))
        state_names = health_pb2.HealthCheckResponse.ServingStatus.DESCRIPTOR.values_by_number
        known = response.status in state_names
        return ServiceHealth(service, state_names[response.status].name if known else f"UNKNOWN {response.status}")

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _predict(self, signature_name: str, requests: Sequence[RankRequest]) -> predict_pb2.PredictResponse:
        deadline = self._deadline()
        try:
            if self._served is None:
                self._served = self._read_metadata(deadline)
            signature = self._find_signature(self._served, signature_name)
            message = build_predict_request(
                self.model_name, signature_name, requests, signature.inputs, _now(), signature.outputs
            )
            return self._call(self._prediction_service.Predict, message, deadline)
        except ValueError as error:
            if not isinstance(error, ServingError) or error.code == grpc.StatusCode.INVALID_ARGUMENT.name:
                self._served = None  # A version with other inputs may have been loaded since: the next call looks.
            raise

    def _find_signature(self, served: ModelMetadata, signature_name: str) -> SignatureMetadata:
        if signature_name not in served.signatures:
            raise ValueError(
                f"The model `{self.model_name}` must have the signature `{signature_name}`. "
                f"Received: version {served.version} with {sorted(served.signatures)}. "
                "Serve a model that export.saved_model wrote."
            )
        return served.signatures[signature_name]

    def _read_metadata(self, deadline: float) -> ModelMetadata:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=[SIGNATURE_DEF_FIELD]
        )
        return read_metadata(self._call(self._prediction_service.GetModelMetadata, request, deadline))

    def _model_spec(self, signature_name: str = "") -> model_pb2.ModelSpec:
        return model_pb2.ModelSpec(name=self.model_name, signature_name=signature_name)

    def _deadline(self) -> float:
        return monotonic() + self.timeout_seconds

    def _call(self, method: Callable[..., Any], request: Any, deadline: float | None = None) -> Any:
        """Calls until `deadline`, by `time.monotonic`, or for the whole timeout where it is None."""
        remaining = self.timeout_seconds if deadline is None else max(0.0, deadline - monotonic())
        try:
            return method(request, timeout=remaining)
        except grpc.RpcError as error:
            code = error.code()
            details = error.details()
            if code == grpc.StatusCode.UNAVAILABLE:
                message = (
                    f"A model server must listen at {self.target}. "
                    f"Received: no answer in {MAX_ATTEMPTS} attempts ({details}). Start one with "
                    f"`python -m serving.local --model_base_path DIR --model_name {self.model_name}`, "
                    "name the address of another, or compare both sides' TLS certificates."
                )
            elif code == grpc.StatusCode.DEADLINE_EXCEEDED:
                message = (
                    f"The server at {self.target} must answer within {self.timeout_seconds:g} seconds. "
                    f"Received: nothing ({details}). Allow more time, or look at its load."
                )
            else:
                message = f"The server at {self.target} answered {code.name}: {details}"
            raise ServingError(code.name, message) from error


def _now() -> int:
    return int(epoch_seconds())


def main() -> None:
    """Runs the command line."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Our one line of error says what gRPC would write beside it.
    from serving.client_command import run  # These import this module.
    from serving.client_flags import parse_args

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # An id may have letters that the terminal has not.
    sys.exit(run(parse_args()))


if __name__ == "__main__":
    main()
