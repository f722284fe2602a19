"""The configuration of TensorFlow Serving, parsed as the server would.

tensorflow-serving-api ships ModelServerConfig, but neither BatchingParameters nor MonitoringConfig. Those two are built
here from the fields that TensorFlow Serving documents for them, as far as our files use them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

CONFIGS = Path(__file__).parents[2] / "serving" / "tf_serving"
Field = descriptor_pb2.FieldDescriptorProto
INT64, STRING = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    """Message name -> class, of the two messages that the installed API lacks."""
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
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf_lift_test.{name}"))
        for name in ("BatchingParameters", "MonitoringConfig")
    }


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    compose = yaml.safe_load((CONFIGS / "docker-compose.yml").read_text())
    (service,) = compose["services"].values()
    return service


def test_models_config():
    config = text_format.Parse(
        (CONFIGS / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    (model,) = config
    assert (model.name, model.base_path) == ("complete_journey", "/models/complete_journey")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_config(messages):
    batching = text_format.Parse((CONFIGS / "batching.config").read_text(), messages["BatchingParameters"]())
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value  # TensorFlow Serving refuses to start otherwise.
    assert batching.batch_timeout_micros.value > 0
    assert batching.num_batch_threads.value > 0
    assert batching.pad_variable_length_inputs


def test_monitoring_config(messages):
    monitoring = text_format.Parse((CONFIGS / "monitoring.config").read_text(), messages["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_compose_mounts_every_file_that_a_flag_names(service):
    target_to_source = {}
    for volume in service["volumes"]:
        source, target, mode = volume.rsplit(":", 2)
        assert mode == "ro"
        target_to_source[target] = source
    assert target_to_source.pop("/models").startswith("${TF_LIFT_MODELS:?")
    for source in target_to_source.values():
        assert (CONFIGS / source).is_file()
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in service["command"])
    assert set(flags) == {
        "model_config_file",
        "enable_batching",
        "batching_parameters_file",
        "monitoring_config_file",
    }
    assert {path for path in flags.values() if path} == set(target_to_source)
    assert {Path(target_to_source[path]).name for path in flags.values() if path} == {
        "models.config",
        "batching.config",
        "monitoring.config",
    }


def test_compose_image_and_ports(service):
    assert service["image"].startswith("tensorflow/serving:${TF_SERVING_TAG:-")
    assert service["ports"] == ["8500:8500", "8501:8501"]


def test_readme_is_short():
    assert len((CONFIGS / "README.md").read_text().splitlines()) <= 40
