from __future__ import annotations

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

TIMEOUT_SECONDS = 20


@pytest.fixture(scope="module")
def stub(target):
    with grpc.insecure_channel(target) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


def test_loaded_version_is_available(stub):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    (status,) = stub.GetModelStatus(request, timeout=TIMEOUT_SECONDS).model_version_status
    assert status.version == 3
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert status.HasField("status") and status.status.error_code == 0


def test_other_models_and_versions_are_not_found(stub):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    request.model_spec.version.value = 4
    with pytest.raises(grpc.RpcError, match="Received: 4") as caught:
        stub.GetModelStatus(request, timeout=TIMEOUT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    request.model_spec.name = "huge"
    with pytest.raises(grpc.RpcError, match="Received: `huge`") as caught:
        stub.GetModelStatus(request, timeout=TIMEOUT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reload_is_unimplemented(stub):
    with pytest.raises(grpc.RpcError, match="Received: HandleReloadConfigRequest") as caught:
        stub.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), timeout=TIMEOUT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
