"""TensorFlow Serving's PredictionService, as far as the local server has it."""

from __future__ import annotations

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.loaded_model import LoadedModel
from serving.request_checks import check_model_spec
from serving.request_error import RequestError, abort, abort_unimplemented

DEFAULT_SIGNATURE = "serving_default"
SIGNATURE_DEF_FIELD = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers Predict and GetModelMetadata for one loaded model; the other calls with UNIMPLEMENTED.

    Method names are gRPC's.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature of the model, `serving_default` where the request names none."""
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        try:
            check_model_spec(request.model_spec, self._model.name, self._model.version)
            outputs = self._model.predict(signature_name, request.inputs, request.output_filter)
        except RequestError as error:
            abort(context, error)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self._model.name
        response.model_spec.version.value = self._model.version
        response.model_spec.signature_name = signature_name
        for name, proto in outputs.items():
            response.outputs[name].CopyFrom(proto)
        return response

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the model's SignatureDefs, packed as a SignatureDefMap under `signature_def`."""
        try:
            check_model_spec(request.model_spec, self._model.name, self._model.version)
            if set(request.metadata_field) != {SIGNATURE_DEF_FIELD}:
                raise RequestError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"metadata_field must be [`{SIGNATURE_DEF_FIELD}`], the only metadata there is. "
                    f"Received: {list(request.metadata_field)}. Ask for that one.",
                )
        except RequestError as error:
            abort(context, error)
        signature_map = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._model.signature_defs.items():
            signature_map.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self._model.name
        response.model_spec.version.value = self._model.version
        response.metadata[SIGNATURE_DEF_FIELD].Pack(signature_map)
        return response

    def Classify(
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Not served here."""
        abort_unimplemented(context, "Classify")

    def Regress(
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Not served here."""
        abort_unimplemented(context, "Regress")

    def MultiInference(
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Not served here."""
        abort_unimplemented(context, "MultiInference")
