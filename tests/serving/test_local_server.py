"""The server over real connections: health, metrics, limits, TLS and hot swap."""

from __future__ import annotations

import datetime
import ipaddress
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest
import tensorflow as tf
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.local_server import LocalServer
from serving.server_configs import build_model_config, read_tls_config
from serving.server_options import ServerOptions

TIMEOUT_SECONDS = 20
LONG_STEPS = 100_000  # About half a second.


def version_request(steps: int = 1) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "scorer"
    request.model_spec.signature_name = "version"
    request.inputs["steps"].CopyFrom(tf.make_tensor_proto([steps], tf.int64))
    return request


def predict_stub(channel: grpc.Channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def answered_version(response: predict_pb2.PredictResponse) -> int:
    (version,) = response.outputs["version"].int64_val
    assert response.model_spec.version.value == version
    return version


@pytest.fixture
def serve(scorer_base_path):
    """Starts servers of the scorer with given options; stops them at the end."""
    started = []

    def start(base_path=scorer_base_path, **options) -> tuple[LocalServer, grpc.Channel]:
        server = LocalServer([build_model_config("scorer", base_path)], ServerOptions(**options)).start()
        channel = grpc.insecure_channel(f"localhost:{server.port}")
        started.append((server, channel))
        return server, channel

    yield start
    for server, channel in started:
        channel.close()
        server.stop()


def wait_until(condition) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="rest_api_port must be in 0..65535. Received: 70000"):
        ServerOptions(rest_api_port=70_000)
    with pytest.raises(ValueError, match="max_concurrency must be at least 1. Received: 0"):
        ServerOptions(max_concurrency=0)


def test_started_server_cannot_be_started_again(server):
    with pytest.raises(ValueError, match="started once"):
        server.start()


def test_health_of_each_service_and_of_all(target):
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request, timeout=TIMEOUT_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT_SECONDS)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_metrics(serve):
    server, channel = serve(rest_api_port=0, metrics_path="/metrics")
    predict_stub(channel).Predict(version_request(), timeout=TIMEOUT_SECONDS)
    made_up = version_request()
    made_up.model_spec.name = "made up"
    with pytest.raises(grpc.RpcError):
        predict_stub(channel).Predict(made_up, timeout=TIMEOUT_SECONDS)
    address = f"http://127.0.0.1:{server.rest_api_port}"
    with urllib.request.urlopen(f"{address}/metrics", timeout=TIMEOUT_SECONDS) as response:
        lines = response.read().decode().splitlines()
    labels = 'method="Predict",model_name="scorer",signature_name="version"'
    assert f'serving_requests_total{{{labels},status="OK"}} 1.0' in lines
    assert f'serving_request_latency_seconds_bucket{{le="+Inf",{labels}}} 1.0' in lines
    unknown = 'method="Predict",model_name="",signature_name="",status="NOT_FOUND"'
    assert f"serving_requests_total{{{unknown}}} 1.0" in lines
    assert 'serving_model_version_state{model_name="scorer",state="AVAILABLE",version="1"} 1.0' in lines
    assert {"serving_requests_in_flight 0.0", "serving_queue_length 0.0"} <= set(lines)
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    assert not any("made up" in line for line in lines)  # Callers must not make metrics grow.
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/v1/models/scorer", timeout=TIMEOUT_SECONDS)


def test_taken_port_for_metrics(serve):
    server, _ = serve(rest_api_port=0)
    with pytest.raises(ValueError, match=f"port for metrics must be free. Received: {server.rest_api_port}"):
        serve(rest_api_port=server.rest_api_port)


def test_excess_is_refused_at_once_while_health_status_and_metadata_are_answered(serve):
    _, channel = serve(max_concurrency=1, max_queue=1)
    stub = predict_stub(channel)
    admitted = [stub.Predict.future(version_request(2 * LONG_STEPS), timeout=TIMEOUT_SECONDS) for _ in range(2)]
    time.sleep(0.1)
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(grpc.RpcError, match="lets 1 wait") as refused:
            stub.Predict(version_request(), timeout=TIMEOUT_SECONDS)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
    status_request = get_model_status_pb2.GetModelStatusRequest()
    status_request.model_spec.name = "scorer"
    model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status_request, timeout=TIMEOUT_SECONDS)
    metadata_request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata_request.model_spec.name = "scorer"
    stub.GetModelMetadata(metadata_request, timeout=TIMEOUT_SECONDS)
    elapsed = time.monotonic() - began
    assert not any(request.done() for request in admitted), f"{elapsed} s"
    assert [answered_version(request.result()) for request in admitted] == [1, 1]


def test_request_whose_deadline_passes_in_the_queue_is_not_run(serve):
    server, channel = serve(max_concurrency=1, max_queue=1, rest_api_port=0)
    stub = predict_stub(channel)
    running = stub.Predict.future(version_request(LONG_STEPS), timeout=TIMEOUT_SECONDS)
    time.sleep(0.1)
    with pytest.raises(grpc.RpcError) as late:
        stub.Predict(version_request(100 * LONG_STEPS), timeout=0.05)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    running.result()
    began = time.monotonic()
    stub.Predict(version_request(), timeout=TIMEOUT_SECONDS)
    assert time.monotonic() - began < 5  # The late one would have run for a minute.


def test_message_above_the_limit_is_refused(serve):
    _, channel = serve(max_request_bytes=1000)
    request = version_request()
    request.inputs["steps"].int64_val.extend(range(1000))
    with pytest.raises(grpc.RpcError) as refused:
        predict_stub(channel).Predict(request, timeout=TIMEOUT_SECONDS)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    predict_stub(channel).Predict(version_request(), timeout=TIMEOUT_SECONDS)


def test_draining_server_says_so_ends_what_runs_and_refuses_the_rest(serve):
    server, channel = serve()
    stub, health = predict_stub(channel), health_pb2_grpc.HealthStub(channel)
    running = stub.Predict.future(version_request(2 * LONG_STEPS), timeout=TIMEOUT_SECONDS)
    time.sleep(0.1)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    check = health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService")
    wait_until(
        lambda: health.Check(check, timeout=TIMEOUT_SECONDS).status == health_pb2.HealthCheckResponse.NOT_SERVING
    )
    with pytest.raises(grpc.RpcError, match="until it is told to stop") as refused:
        stub.Predict(version_request(), timeout=TIMEOUT_SECONDS)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not running.done()
    assert answered_version(running.result()) == 1
    stopping.join(TIMEOUT_SECONDS)
    assert not stopping.is_alive()


def test_hot_swap_under_load_fails_no_request(serve, scorer_saver, tmp_path):
    save_scorer, _ = scorer_saver
    save_scorer(tmp_path, 1)
    server, channel = serve(tmp_path, poll_seconds=0.02)
    stub, versions, is_over = predict_stub(channel), [], threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            versions.append(answered_version(stub.Predict(version_request(20), timeout=TIMEOUT_SECONDS)))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    wait_until(lambda: len(versions) > 20)
    save_scorer(tmp_path, 2)
    wait_until(lambda: versions[-1] == 2)
    damaged = save_scorer(tmp_path / "aside", 3)
    (damaged / "saved_model.pb").write_bytes(b"\xff")
    damaged.rename(tmp_path / "3")
    wait_until(lambda: ("scorer", 3, "END") in server.manager.list_states())
    asked = len(versions)
    wait_until(lambda: len(versions) > asked + 20)
    alive = [asker.is_alive() for asker in askers]  # A request that fails ends its asker.
    is_over.set()
    for asker in askers:
        asker.join(TIMEOUT_SECONDS)
    assert all(alive)
    assert versions[-1] == 2
    assert server.manager.list_states() == [("scorer", 1, "END"), ("scorer", 2, "AVAILABLE"), ("scorer", 3, "END")]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "scorer"
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=TIMEOUT_SECONDS)
    assert "must be a SavedModel protocol buffer" in status.model_version_status[0].status.error_message


def build_certificate(name: str, issuer=None):
    """A certificate of localhost and its key, signed by an issuer of the same form, or by itself as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    return builder.sign(key if issuer is None else issuer[1], hashes.SHA256()), key


def to_pem(certificate_and_key) -> tuple[bytes, bytes]:
    certificate, key = certificate_and_key
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return (
        certificate.public_bytes(encoding),
        key.private_bytes(encoding, form, serialization.NoEncryption()),
    )


@pytest.mark.parametrize("client_verify", [False, True])
def test_tls_and_mutual_tls(serve, tmp_path, client_verify):
    authority, stranger = build_certificate("authority"), build_certificate("stranger")
    authority_pem, _ = to_pem(authority)
    server_pem, server_key = to_pem(build_certificate("server", authority))
    lines = {"server_key": server_key, "server_cert": server_pem, "custom_ca": authority_pem}
    text = "".join(f"{name}: {pem.decode()!r}\n" for name, pem in lines.items())
    (tmp_path / "ssl.config").write_text(f"{text}client_verify: {str(client_verify).lower()}\n")
    server, plain = serve(tls=read_tls_config(tmp_path / "ssl.config"))

    def ask(*key_and_certificate: bytes) -> int:
        credentials = grpc.ssl_channel_credentials(authority_pem, *key_and_certificate)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            return answered_version(predict_stub(channel).Predict(version_request(), timeout=TIMEOUT_SECONDS))

    def of(issuer) -> tuple[bytes, bytes]:
        certificate, key = to_pem(build_certificate("client", issuer))
        return key, certificate

    with pytest.raises(grpc.RpcError):
        predict_stub(plain).Predict(version_request(), timeout=TIMEOUT_SECONDS)
    assert ask(*of(authority)) == 1
    if client_verify:
        for wrong in ((), of(stranger)):
            with pytest.raises(grpc.RpcError) as refused:
                ask(*wrong)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    else:
        assert ask() == 1
