from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.client import RankingClient
from serving.local import LocalServer, parse_args, run
from serving.model_versions import find_latest_version


def test_highest_number_is_served(tmp_path):
    for name in ("2", "10", "00000009", "11.tmp", "latest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "99").touch()  # No folder.
    assert find_latest_version(tmp_path) == (10, tmp_path / "10")


def test_base_path_must_hold_a_version(tmp_path):
    with pytest.raises(ValueError, match="Received: .*missing, which is not a folder"):
        find_latest_version(tmp_path / "missing")
    with pytest.raises(ValueError, match="one numeric folder a version.*Received: .* with nothing in it"):
        find_latest_version(tmp_path)
    (tmp_path / "7").mkdir()
    with pytest.raises(ValueError, match="must hold saved_model.pb. Received: .*7 without one"):
        find_latest_version(tmp_path)


@pytest.mark.parametrize("folders", [None, []])
def test_no_model_exits_with_2_without_tensorflow(tmp_path, folders):
    base_path = tmp_path if folders == [] else tmp_path / "missing"
    program = (
        "import sys\n"
        "from serving.local import parse_args, run\n"
        "code = run(parse_args(sys.argv[1:]))\n"
        "print('tensorflow' in sys.modules)\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "--model_base_path", str(base_path), "--model_name", "tiny"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert f"Received: {base_path}" in finished.stderr
    assert finished.stdout == "False\n"


def flags_for(base_path, *more: str):
    return parse_args(["--model_base_path", str(base_path), "--model_name", "tiny", *more])


def test_taken_port_exits_with_2(server, model_base_path, capsys):
    assert run(flags_for(model_base_path, "--port", str(server.port))) == 2
    assert f"port must be free. Received: {server.port}" in capsys.readouterr().err


def test_damaged_model_exits_with_2_and_frees_the_port(model_base_path, tmp_path, capsys):
    shutil.copytree(model_base_path / "3", tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\xff not a protocol buffer")
    assert run(flags_for(tmp_path, "--port", "0")) == 2
    assert "must be a SavedModel protocol buffer. Received:" in capsys.readouterr().err

    shutil.copy(model_base_path / "3" / "saved_model.pb", tmp_path / "1")
    shutil.rmtree(tmp_path / "1" / "variables")
    damaged = LocalServer(tmp_path, "tiny")
    with pytest.raises(ValueError, match="must hold a SavedModel that TensorFlow can load"):
        damaged.start()
    with LocalServer(model_base_path, "tiny", port=damaged.port):
        pass


def test_model_without_a_serving_graph_exits_with_2(tmp_path, capsys):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    assert run(flags_for(tmp_path)) == 2
    assert "must have a graph with the tag `serve`" in capsys.readouterr().err


def test_arguments_are_checked(model_base_path):
    with pytest.raises(ValueError, match="model name must not be empty"):
        LocalServer(model_base_path, "")
    with pytest.raises(ValueError, match="port must be in 0..65535. Received: 70000"):
        LocalServer(model_base_path, "tiny", port=70_000)
    with pytest.raises(ValueError, match="at least 1 worker. Received: 0"):
        LocalServer(model_base_path, "tiny", max_workers=0)


def test_running_server_cannot_be_started_again(server):
    with pytest.raises(ValueError, match="started once"):
        server.start()


def test_sigterm_lets_running_requests_end_and_exits_with_0(model_base_path):
    command = [sys.executable, "-m", "serving.local", "--model_base_path", str(model_base_path)]
    process = subprocess.Popen(
        [*command, "--model_name", "tiny", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("Serving tiny version 3 at localhost:")
        target = ready.rsplit(" ", 1)[1].strip()
        with grpc.insecure_channel(target) as channel:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "tiny"
            request.model_spec.signature_name = "count"
            request.inputs["steps"].CopyFrom(tf.make_tensor_proto([500_000], tf.int64))
            grpc.channel_ready_future(channel).result(timeout=20)
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            running = stub.Predict.future(request, timeout=40)
            time.sleep(0.2)  # Until the request has arrived: a later one is refused.
            was_running = not running.done()
            process.send_signal(signal.SIGTERM)
            assert tf.make_ndarray(running.result().outputs["counted"]) == 1_000_000
        assert was_running
        assert process.wait(timeout=20) == 0
        assert process.stdout.read() == ""
        with RankingClient(target, model_name="tiny") as client, pytest.raises(ValueError, match="must listen at"):
            client.status()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
