"""TensorFlow Serving's PredictionService on the models of a manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.inference import classify, multi_infer, predict, regress
from serving.loaded_model import DEFAULT_SIGNATURE, LoadedModel
from serving.metrics import RequestLabels
from serving.model_manager import ModelManager
from serving.request_error import invalid
from serving.rpc_methods import Answer

SIGNATURE_DEF_FIELD = "signature_def"

_RunOnExamples = Callable[[LoadedModel, str, input_pb2.Input], Message]  # -> the response's `result`


class PredictionService:
    """Answers the methods of PredictionService, whose names its dictionaries have.

    Attributes:
        model_answers: Methods that run a model, which the server bounds.
        metadata_answers: Methods that only read, which are answered even when the server is full.
    """

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self.model_answers: Mapping[str, Answer] = {
            "Predict": self._predict,
            "Classify": partial(self._infer, classify, classification_pb2.ClassificationResponse),
            "Regress": partial(self._infer, regress, regression_pb2.RegressionResponse),
            "MultiInference": self._multi_infer,
        }
        self.metadata_answers: Mapping[str, Answer] = {"GetModelMetadata": self._get_metadata}

    def _predict(self, request: predict_pb2.PredictRequest, labels: RequestLabels) -> predict_pb2.PredictResponse:
        with self._manager.use(request.model_spec) as model:
            _fill_labels(labels, model, request.model_spec)
            return predict(model, request)

    def _infer(self, run: _RunOnExamples, response_class: type[Any], request: Any, labels: RequestLabels) -> Message:
        """Answers Classify and Regress, whose messages have the same fields."""
        spec = request.model_spec
        with self._manager.use(spec) as model:
            _fill_labels(labels, model, spec)
            response: Message = response_class(result=run(model, spec.signature_name, request.input))
        _fill_spec(response.model_spec, model, spec)
        return response

    def _multi_infer(
        self, request: inference_pb2.MultiInferenceRequest, labels: RequestLabels
    ) -> inference_pb2.MultiInferenceResponse:
        if not request.tasks:
            raise invalid("A request must have a task. Received: none. Fill `tasks`, one for each signature.")
        with self._manager.use(request.tasks[0].model_spec) as model:
            labels.model_name = model.name
            return multi_infer(model, request)

    def _get_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, labels: RequestLabels
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        with self._manager.use(request.model_spec) as model:
            labels.model_name = model.name
        if set(request.metadata_field) != {SIGNATURE_DEF_FIELD}:
            raise invalid(
                f"metadata_field must be [`{SIGNATURE_DEF_FIELD}`], the only metadata there is. "
                f"Received: {list(request.metadata_field)}. Ask for that one."
            )
        signature_map = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in model.signature_defs.items():
            signature_map.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = model.name
        response.model_spec.version.value = model.version
        response.metadata[SIGNATURE_DEF_FIELD].Pack(signature_map)
        return response


def _fill_labels(labels: RequestLabels, model: LoadedModel, spec: model_pb2.ModelSpec) -> None:
    labels.model_name = model.name
    labels.signature_name = model.signature(spec.signature_name).name


def _fill_spec(filled: model_pb2.ModelSpec, model: LoadedModel, spec: model_pb2.ModelSpec) -> None:
    filled.name = model.name
    filled.version.value = model.version
    filled.signature_name = spec.signature_name or DEFAULT_SIGNATURE
