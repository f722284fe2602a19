"""The command: its flags, exit codes and signals."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time

import grpc
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.local import parse_args, read_options, run
from serving.local_server import LocalServer
from serving.server_configs import build_model_config
from serving.server_options import ServerOptions


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name one model by --model_base_path and --model_name.*Received: neither"),
        (["--model_name", "a", "--model_config_file", "b"], "Received: both"),
        (["--model_name", "a"], "must have a name, a base_path .*Received: name `a`, base_path ``"),
        (["--model_config_file", "absent"], "must be a ModelServerConfig.*Received: absent"),
    ],
)
def test_wrong_flags_exit_with_2(arguments, message, capsys):
    assert run(parse_args(arguments)) == 2
    error = capsys.readouterr().err
    assert re.match(f"serving.local: .*{message}", error, re.DOTALL), error


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
    damaged = LocalServer([build_model_config("tiny", tmp_path)])
    with pytest.raises(ValueError, match="must hold a SavedModel that TensorFlow can load"):
        damaged.start()
    with LocalServer([build_model_config("tiny", model_base_path)], ServerOptions(port=damaged.port)):
        pass


def test_model_without_a_serving_graph_exits_with_2(tmp_path, capsys):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    assert run(flags_for(tmp_path, "--port", "0")) == 2
    assert "must have a graph with the tag `serve`" in capsys.readouterr().err


def test_flags_become_options(tmp_path):
    (tmp_path / "monitoring.config").write_text('prometheus_config { enable: true path: "/m" }')
    arguments = [
        *("--port", "1234", "--host", "0.0.0.0", "--rest_api_port", "1235", "--max_concurrency", "3"),
        *("--max_queue", "5", "--max_request_bytes", "77", "--max_input_values", "88", "--drain_seconds", "9"),
        *("--max_batch_size", "6"),
        *("--file_system_poll_wait_seconds", "10", "--monitoring_config_file", str(tmp_path / "monitoring.config")),
    ]
    assert read_options(flags_for(tmp_path, *arguments)) == ServerOptions(
        host="0.0.0.0",
        port=1234,
        max_concurrency=3,
        max_queue=5,
        max_request_bytes=77,
        max_input_values=88,
        max_batch_size=6,
        drain_seconds=9,
        poll_seconds=10,
        rest_api_port=1235,
        metrics_path="/m",
    )
    assert read_options(flags_for(tmp_path)) == ServerOptions(port=8500)


def test_help_says_what_production_is(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse_args(["--help"])
    assert "Production is TensorFlow Serving" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "drain_seconds", "exit_code"), [(200_000, 30, 0), (10**12, 0.2, 1)], ids=["ends", "is cut off"]
)
def test_sigterm_lets_running_requests_end(
    model_base_path, scorer_base_path, tmp_path, steps, drain_seconds, exit_code
):
    models = {"tiny": model_base_path, "scorer": scorer_base_path}
    configs = "".join(f'config {{ name: "{name}" base_path: "{path}" }}\n' for name, path in models.items())
    (tmp_path / "models.config").write_text(f"model_config_list {{\n{configs}}}")
    command = [sys.executable, "-m", "serving.local", "--model_config_file", str(tmp_path / "models.config")]
    limits = ["--drain_seconds", str(drain_seconds), "--tensorflow_intra_op_parallelism", "1"]
    process = subprocess.Popen(
        [*command, "--port", "0", *limits], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("Serving tiny version 3, scorer version 1 at localhost:")
        with grpc.insecure_channel(ready.rsplit(" ", 1)[1].strip()) as channel:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "tiny"
            request.model_spec.signature_name = "count"
            request.inputs["steps"].CopyFrom(tf.make_tensor_proto([steps], tf.int64))
            grpc.channel_ready_future(channel).result(timeout=20)
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            running = stub.Predict.future(request, timeout=40)
            time.sleep(0.2)  # Until the request has arrived: a later one is refused.
            assert not running.done()
            process.send_signal(signal.SIGTERM)
            if exit_code == 0:
                assert tf.make_ndarray(running.result().outputs["counted"]) == 2 * steps
            assert process.wait(timeout=20) == exit_code
            assert process.stdout.read() == ""
            with pytest.raises(grpc.RpcError) as gone:
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert gone.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
