"""TensorFlow Serving's ModelService on the models of a manager."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from serving.metrics import RequestLabels
from serving.model_manager import ModelManager
from serving.request_error import invalid
from serving.rpc_methods import Answer
from serving.server_configs import check_model_configs


class ModelService:
    """Answers the methods of ModelService, whose names the dictionary `answers` has."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self.answers: Mapping[str, Answer] = {
            "GetModelStatus": self._get_status,
            "HandleReloadConfigRequest": self._reload,
        }

    def _get_status(
        self, request: get_model_status_pb2.GetModelStatusRequest, labels: RequestLabels
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of every version, newest first; END with an error is a version that could not be loaded."""
        statuses = self._manager.statuses(request.model_spec)
        labels.model_name = request.model_spec.name
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state, error in statuses:
            status = response.model_version_status.add(version=version, state=state)
            status.status.SetInParent()  # An empty StatusProto is OK, as TensorFlow Serving sends it.
            if error:
                status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
                status.status.error_message = error
        return response

    def _reload(
        self, request: model_management_pb2.ReloadConfigRequest, _: RequestLabels
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves the models of the request's config in place of the present ones, once all of them are loaded."""
        try:
            configs = check_model_configs(request.config)
        except ValueError as error:
            raise invalid(str(error)) from error
        self._manager.reload(configs)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response
