"""TensorFlow Serving's ModelService, as far as the local server has it."""

from __future__ import annotations

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

from serving.loaded_model import LoadedModel
from serving.request_checks import check_model_spec
from serving.request_error import RequestError, abort, abort_unimplemented


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Says that the loaded version is AVAILABLE; other calls get UNIMPLEMENTED. Method names are gRPC's."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of the one version that is served."""
        try:
            check_model_spec(request.model_spec, self._model.name, self._model.version)
        except RequestError as error:
            abort(context, error)
        response = get_model_status_pb2.GetModelStatusResponse()
        status = response.model_version_status.add(
            version=self._model.version, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE
        )
        status.status.SetInParent()  # An empty StatusProto is OK, as TensorFlow Serving sends it.
        return response

    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Not served here."""
        abort_unimplemented(context, "HandleReloadConfigRequest")
