"""The configuration of TensorFlow Serving: messages parsed as the server would, and that the files fit one another.

tensorflow-serving-api ships ModelServerConfig, but neither BatchingParameters, MonitoringConfig nor SSLConfig. Those are built
here with the fields that TensorFlow Serving publishes for them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

FOLDER = Path(__file__).parents[2] / "serving" / "tf_serving"
CONFIG = FOLDER / "config"
CONFIG_TARGET = "/etc/tf_serving"
NAME = "complete_journey"
GRPC_PORT, REST_PORT = 8500, 8501
FLAGS = {  # of tensorflow_model_server that may be used here
    *("port", "rest_api_port", "rest_api_num_threads", "rest_api_timeout_in_ms", "grpc_channel_arguments"),
    *("grpc_max_threads", "model_config_file", "model_config_file_poll_wait_seconds", "file_system_poll_wait_seconds"),
    *("enable_batching", "batching_parameters_file", "monitoring_config_file", "ssl_config_file", "num_load_threads"),
    *("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism", "tensorflow_session_parallelism"),
    *("max_num_load_retries", "load_retry_interval_micros", "enable_model_warmup", "per_process_gpu_memory_fraction"),
}
Field = descriptor_pb2.FieldDescriptorProto
INT64, STRING = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    """Message name -> class, of the messages that the installed API lacks."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tf_lift_test_serving.proto",
        package="tf_lift_test",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )

    def add(message: str, fields: dict[str, tuple[int, str | None, int]]) -> None:
        added = file.message_type.add(name=message)
        for number, (name, (kind, type_name, label)) in enumerate(fields.items(), 1):
            added.field.add(name=name, number=number, type=kind, type_name=type_name, label=label)

    one, many = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
    add(
        "BatchingParameters",
        {
            "max_batch_size": (Field.TYPE_MESSAGE, INT64, one),
            "batch_timeout_micros": (Field.TYPE_MESSAGE, INT64, one),
            "max_enqueued_batches": (Field.TYPE_MESSAGE, INT64, one),
            "num_batch_threads": (Field.TYPE_MESSAGE, INT64, one),
            "thread_pool_name": (Field.TYPE_MESSAGE, STRING, one),
            "allowed_batch_sizes": (Field.TYPE_INT64, None, many),
            "pad_variable_length_inputs": (Field.TYPE_BOOL, None, one),
        },
    )
    add("PrometheusConfig", {"enable": (Field.TYPE_BOOL, None, one), "path": (Field.TYPE_STRING, None, one)})
    add("MonitoringConfig", {"prometheus_config": (Field.TYPE_MESSAGE, ".tf_lift_test.PrometheusConfig", one)})
    texts = {name: (Field.TYPE_STRING, None, one) for name in ("server_key", "server_cert", "custom_ca")}
    add("SSLConfig", texts | {"client_verify": (Field.TYPE_BOOL, None, one)})
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf_lift_test.{name}"))
        for name in ("BatchingParameters", "MonitoringConfig", "SSLConfig")
    }


def read_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


def read_flags(arguments: list[str]) -> dict[str, str]:
    assert all(argument.startswith("--") and "=" in argument for argument in arguments)
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


def image_tag(name: str) -> str:
    (image,) = read_yaml(f"{name}/kustomization.yaml")["images"]
    assert image["name"] == "tensorflow/serving"
    return image["newTag"]


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    (service,) = read_yaml("docker-compose.yml")["services"].values()
    return service


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    return read_yaml("kubernetes/deployment.yaml")["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def monitoring(messages):
    return text_format.Parse((CONFIG / "monitoring.config").read_text(), messages["MonitoringConfig"]())


def test_models_config():
    config = text_format.Parse(
        (CONFIG / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    (model,) = config
    assert (model.name, model.base_path) == (NAME, f"/models/{NAME}")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1


@pytest.mark.parametrize("name", ["batching.config", "batching_gpu.config"])
def test_batching_config(messages, service, name):
    batching = text_format.Parse((CONFIG / name).read_text(), messages["BatchingParameters"]())
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value  # TensorFlow Serving refuses to start otherwise.
    assert batching.batch_timeout_micros.value > 0
    assert batching.max_enqueued_batches.value > 0
    assert batching.num_batch_threads.value > 0
    assert batching.pad_variable_length_inputs
    num_threads = int(read_flags(service["command"])["grpc_max_threads"])
    assert num_threads >= batching.max_batch_size.value * batching.num_batch_threads.value


def test_monitoring_config(monitoring):
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_ssl_config_example(messages):
    config = text_format.Parse((CONFIG / "ssl.config.example").read_text(), messages["SSLConfig"]())
    assert config.client_verify
    for text, kind in (
        (config.server_key, "PRIVATE KEY"),
        (config.server_cert, "CERTIFICATE"),
        (config.custom_ca, "CERTIFICATE"),
    ):
        assert text == f"-----BEGIN {kind}-----\n...\n-----END {kind}-----\n"  # an example, and no key


def test_flags_are_known_and_the_same_in_compose_and_kubernetes(service, container):
    assert service["entrypoint"] == container["command"] == ["tensorflow_model_server"]
    flags, cluster_flags = read_flags(service["command"]), read_flags(container["args"])
    assert flags.keys() | cluster_flags.keys() <= FLAGS
    assert cluster_flags == flags | {"grpc_channel_arguments": "grpc.max_connection_age_ms=10000"}
    assert (flags["port"], flags["rest_api_port"], flags["enable_batching"]) == (str(GRPC_PORT), str(REST_PORT), "true")
    for name in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"):
        assert (
            flags[name] == service["deploy"]["resources"]["limits"]["cpus"] == container["resources"]["limits"]["cpu"]
        )


def test_flags_name_files_of_the_mounts(service, pod, container):
    assert service["volumes"][0].startswith("${TF_LIFT_MODELS:?") and service["volumes"][0].endswith(":/models:ro")
    assert service["volumes"][1:] == [f"./config:{CONFIG_TARGET}:ro"]
    files = {Path(value) for name, value in read_flags(service["command"]).items() if name.endswith("_file")}
    assert {path.name for path in files} == {"models.config", "batching.config", "monitoring.config"}
    assert all(path.parent == Path(CONFIG_TARGET) and (CONFIG / path.name).is_file() for path in files)
    (generator,) = read_yaml("config/kustomization.yaml")["configMapGenerator"]
    assert {path.name for path in files} <= set(generator["files"])
    assert all((CONFIG / name).is_file() for name in generator["files"])
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["config"] == {"name": "config", "mountPath": CONFIG_TARGET, "readOnly": True}
    assert mounts["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert volumes["config"]["configMap"]["name"] == generator["name"]
    assert volumes["models"]["persistentVolumeClaim"]["readOnly"]


def test_containers_are_confined(service, pod, container):
    assert service["user"] == "65534:65534" and service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    context = pod["spec"]["securityContext"]
    assert context["runAsNonRoot"] and (context["runAsUser"], context["runAsGroup"]) == (65534, 65534)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_resources_are_the_same(service, container):
    compose, cluster = service["deploy"]["resources"], container["resources"]
    for ours, theirs in (("limits", "limits"), ("reservations", "requests")):
        assert compose[ours]["cpus"] == cluster[theirs]["cpu"]
        assert compose[ours]["memory"].replace("G", "Gi") == cluster[theirs]["memory"]  # Compose's G is 2^30 bytes.


def test_ports_and_probes(service, pod, container, monitoring):
    assert service["ports"] == [
        f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)
    ]  # without TLS: this machine alone
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "rest": REST_PORT}
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{NAME}", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    in_service = {
        port["name"]: (port["port"], port["targetPort"])
        for port in read_yaml("kubernetes/service.yaml")["spec"]["ports"]
    }
    assert in_service == {name: (port, name) for name, port in ports.items()}
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(REST_PORT)
    assert annotations["prometheus.io/path"] == monitoring.prometheus_config.path


def test_a_pod_stops_after_its_connections(pod, container):
    (seconds,) = container["lifecycle"]["preStop"]["exec"]["command"][1:]
    age = read_flags(container["args"])["grpc_channel_arguments"].removeprefix("grpc.max_connection_age_ms=")
    assert int(age) / 1000 < int(seconds) < pod["spec"]["terminationGracePeriodSeconds"]


def test_autoscaler_and_budget_keep_pods_up():
    autoscaler = read_yaml("kubernetes/autoscaler.yaml")["spec"]
    deployment = read_yaml("kubernetes/deployment.yaml")
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]  # or every apply would undo the autoscaler
    assert (
        autoscaler["maxReplicas"]
        > autoscaler["minReplicas"]
        > read_yaml("kubernetes/disruption_budget.yaml")["spec"]["maxUnavailable"]
    )


def test_gpu_variants(service, messages):
    (gpu,) = read_yaml("docker-compose.gpu.yml")["services"].values()
    assert gpu["image"] == service["image"] + "-gpu"
    assert service["image"] == "tensorflow/serving:${TF_SERVING_TAG:-" + image_tag("kubernetes") + "}"
    assert image_tag("kubernetes_gpu") == image_tag("kubernetes") + "-gpu"
    assert gpu["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    target = read_flags(service["command"])["batching_parameters_file"]
    assert gpu["volumes"] == [f"./config/batching_gpu.config:{target}:ro"]
    spec = read_yaml("kubernetes_gpu/deployment.yaml")["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    items = {item["path"]: item["key"] for item in spec["volumes"][0]["configMap"]["items"]}
    assert items == {
        "models.config": "models.config",
        "batching.config": "batching_gpu.config",
        "monitoring.config": "monitoring.config",
    }


@pytest.mark.parametrize("variant", ["kubernetes", "kubernetes_gpu"])
def test_kustomize_builds_the_variants(variant):
    if shutil.which("kubectl") is None:
        pytest.skip("no `kubectl` in PATH")
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / variant)], capture_output=True, text=True, check=True
    ).stdout
    kind_to_object = {each["kind"]: each for each in yaml.safe_load_all(built)}
    assert kind_to_object.keys() == {
        "ConfigMap",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    config, deployment = kind_to_object["ConfigMap"], kind_to_object["Deployment"]
    assert config["data"] == {path.name: path.read_text() for path in CONFIG.glob("*.config")}
    spec = deployment["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == f"tensorflow/serving:{image_tag(variant)}"
    assert spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == (
        1 if variant == "kubernetes_gpu" else None
    )
    mounted = {volume["name"]: volume for volume in spec["volumes"]}["config"]["configMap"]
    assert mounted["name"] == config["metadata"]["name"]
    assert {item["key"] for item in mounted.get("items", [])} <= config["data"].keys()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        kind_to_object["Service"]["spec"]["selector"],
        kind_to_object["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector and selector.items() <= labels.items()


class ModelStatus(BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving's REST API does."""

    state = "AVAILABLE"

    def do_GET(self) -> None:
        is_known = self.path == f"/v1/models/{NAME}"
        status = {"model_version_status": [{"version": "1", "state": self.state, "status": {"error_code": "OK"}}]}
        body = json.dumps(
            status if is_known else {"error": "Could not find any versions, UNAVAILABLE"}, indent=1
        ).encode()
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keeps the test's output free of requests."""


@pytest.fixture
def rest_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), ModelStatus) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_health_check_asks_for_an_available_version(service, rest_port, monkeypatch):
    if shutil.which("bash") is None:
        pytest.skip("no `bash` in PATH")
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD" and str(REST_PORT) in command[-1]

    def is_healthy(port: int, name: str = NAME) -> bool:
        script = command[-1].replace(str(REST_PORT), str(port)).replace(NAME, name)
        return subprocess.run([*command[:-1], script], capture_output=True, check=False, timeout=10).returncode == 0

    assert is_healthy(rest_port)
    assert not is_healthy(rest_port, name="other")
    assert not is_healthy(port=1)  # nobody listens
    monkeypatch.setattr(ModelStatus, "state", "LOADING")
    assert not is_healthy(rest_port)


def test_readme_names_every_file():
    readme = (FOLDER / "README.md").read_text()
    assert not [
        path.name
        for path in (*FOLDER.iterdir(), *CONFIG.glob("*.config*"))
        if path.name != "README.md" and path.name not in readme
    ]
