from __future__ import annotations

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

from serving.local_server import LocalServer
from serving.server_configs import build_model_config

TIMEOUT_SECONDS = 20
State = get_model_status_pb2.ModelVersionStatus


@pytest.fixture(scope="module")
def stub(target):
    with grpc.insecure_channel(target) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


def status_request(name: str) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    return request


def test_loaded_version_is_available(stub):
    (status,) = stub.GetModelStatus(status_request("tiny"), timeout=TIMEOUT_SECONDS).model_version_status
    assert status.version == 3
    assert status.state == State.AVAILABLE
    assert status.HasField("status") and status.status.error_code == 0


def test_other_models_and_versions_are_not_found(stub):
    request = status_request("tiny")
    request.model_spec.version.value = 4
    with pytest.raises(grpc.RpcError, match=r"has the versions \[3\] of `tiny`. Received: version 4") as caught:
        stub.GetModelStatus(request, timeout=TIMEOUT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError, match="Received: `huge`") as caught:
        stub.GetModelStatus(status_request("huge"), timeout=TIMEOUT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reload_serves_another_list_of_models_or_changes_nothing(model_base_path, scorer_base_path):
    with (
        LocalServer([build_model_config("tiny", model_base_path)]) as server,
        grpc.insecure_channel(f"localhost:{server.port}") as channel,
    ):
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_management_pb2.ReloadConfigRequest()
        with pytest.raises(grpc.RpcError, match="at least one model") as caught:
            stub.HandleReloadConfigRequest(request, timeout=TIMEOUT_SECONDS)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

        scorer = request.config.model_config_list.config.add()
        scorer.CopyFrom(build_model_config("scorer", scorer_base_path))
        scorer.version_labels["stable"] = 2
        with pytest.raises(grpc.RpcError, match="Received: `stable` for version 2 of `scorer`") as caught:
            stub.HandleReloadConfigRequest(request, timeout=TIMEOUT_SECONDS)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert server.manager.list_states() == [("tiny", 3, "AVAILABLE")]

        scorer.version_labels["stable"] = 1
        stub.HandleReloadConfigRequest(request, timeout=TIMEOUT_SECONDS)
        assert server.manager.list_states() == [("scorer", 1, "AVAILABLE")]
        labelled = status_request("scorer")
        labelled.model_spec.version_label = "stable"
        (status,) = stub.GetModelStatus(labelled, timeout=TIMEOUT_SECONDS).model_version_status
        assert (status.version, status.state) == (1, State.AVAILABLE)
        with pytest.raises(grpc.RpcError, match="Received: `tiny`"):
            stub.GetModelStatus(status_request("tiny"), timeout=TIMEOUT_SECONDS)
