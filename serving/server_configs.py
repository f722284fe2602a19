"""TensorFlow Serving's configuration files: models, monitoring and TLS, as text protocol buffers.

tensorflow-serving-api has ModelServerConfig. It lacks MonitoringConfig and SSLConfig, so these two are built here with
the names and numbers of their published fields. Imports no TensorFlow.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
_PACKAGE = "tf_lift.serving_config"
_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, dict[str, tuple[Any, str | None]]] = {
    "PrometheusConfig": {"enable": (_Field.TYPE_BOOL, None), "path": (_Field.TYPE_STRING, None)},
    "MonitoringConfig": {"prometheus_config": (_Field.TYPE_MESSAGE, f".{_PACKAGE}.PrometheusConfig")},
    "SSLConfig": {
        "server_key": (_Field.TYPE_STRING, None),
        "server_cert": (_Field.TYPE_STRING, None),
        "custom_ca": (_Field.TYPE_STRING, None),
        "client_verify": (_Field.TYPE_BOOL, None),
    },
}


@dataclass(frozen=True)
class TlsConfig:
    """Key and certificates, as PEM.

    Attributes:
        server_key: The server's private key.
        server_cert: Its certificate, and those between it and the authority.
        custom_ca: Certificates of the authorities that sign clients' certificates; empty where clients need none.
        client_verify: Whether a client must show a certificate.
    """

    server_key: bytes
    server_cert: bytes
    custom_ca: bytes
    client_verify: bool


def read_model_configs(path: str | Path) -> list[model_server_config_pb2.ModelConfig]:
    """Reads a ModelServerConfig (--model_config_file). Raises ValueError as `check_model_configs`, or if unreadable."""
    return check_model_configs(_read_text(path, model_server_config_pb2.ModelServerConfig()))


def check_model_configs(
    config: model_server_config_pb2.ModelServerConfig,
) -> list[model_server_config_pb2.ModelConfig]:
    """Returns the configs of the models.

    Raises:
        ValueError: There is no model, two have the same name, or one lacks a name or base path or is no TensorFlow model.
    """
    configs = list(config.model_config_list.config)
    names = [model.name for model in configs]
    if not configs or len(set(names)) != len(names):
        raise ValueError(
            "A ModelServerConfig must have a model_config_list of at least one model, each of another name. "
            f"Received: the names {names}. Correct the list."
        )
    for model in configs:
        if not model.name or not model.base_path or model.model_platform not in ("", "tensorflow"):
            raise ValueError(
                'A model must have a name, a base_path and the model_platform "tensorflow". Received: '
                f"name `{model.name}`, base_path `{model.base_path}`, model_platform `{model.model_platform}`. "
                "Fill what is missing."
            )
    return configs


def read_metrics_path(path: str | Path) -> str:
    """Reads a MonitoringConfig (--monitoring_config_file): the path of the metrics, or nothing where they are off.

    Raises:
        ValueError: The file cannot be read, or its path does not begin with a slash.
    """
    prometheus = _read_text(path, _build_message("MonitoringConfig")).prometheus_config
    if not prometheus.enable:
        return ""
    metrics_path = prometheus.path or DEFAULT_METRICS_PATH
    if not metrics_path.startswith("/"):
        raise ValueError(f"The path of the metrics must begin with a slash. Received: `{metrics_path}`. Put one there.")
    return metrics_path


def read_tls_config(path: str | Path) -> TlsConfig:
    """Reads an SSLConfig (--ssl_config_file), and checks that key and certificates are what they should be.

    Raises:
        ValueError: The file cannot be read, key and certificate do not fit each other, or there is no authority for the
            clients' certificates that it asks for.
    """
    config = _read_text(path, _build_message("SSLConfig"))
    if config.client_verify and not config.custom_ca:
        raise ValueError(
            "An SSLConfig with client_verify must have a custom_ca, which signs the clients' certificates. "
            f"Received: {path} without one. Add it as PEM."
        )
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:  # OpenSSL reads a key from a file only.
            both.write(f"{config.server_key}\n{config.server_cert}\n")
            both.flush()
            context.load_cert_chain(both.name)
        if config.custom_ca:
            context.load_verify_locations(cadata=config.custom_ca)
    except ssl.SSLError as error:
        raise ValueError(
            "server_key, server_cert and custom_ca of an SSLConfig must be PEM, and the key that of the certificate. "
            f"Received: {path}: {error}. Put the files' content there, not their names."
        ) from error
    return TlsConfig(
        config.server_key.encode(), config.server_cert.encode(), config.custom_ca.encode(), config.client_verify
    )


def _read_text(path: str | Path, message: Any) -> Any:
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError(
            f"The file must be a {message.DESCRIPTOR.name} as a text protocol buffer. Received: {path}: {error}. "
            "Correct the file, or the flag that names it."
        ) from error


def _build_message(name: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        added = file.message_type.add(name=message)
        for number, (field, (kind, type_name)) in enumerate(fields.items(), 1):
            added.field.add(name=field, number=number, type=kind, type_name=type_name, label=_Field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))()


def build_model_config(name: str, base_path: str | Path) -> model_server_config_pb2.ModelConfig:
    """Builds the config of one model with the default policy, its newest version. Raises ValueError if one is empty."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=str(base_path), model_platform="tensorflow")
    (model,) = check_model_configs(config)
    return model
