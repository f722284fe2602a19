from __future__ import annotations

import pytest

from serving.server_configs import build_model_config, read_metrics_path, read_model_configs, read_tls_config


def write(path, text: str):
    (path / "a.config").write_text(text)
    return path / "a.config"


def test_model_configs(tmp_path):
    text = 'model_config_list { config { name: "a" base_path: "/m/a" version_labels { key: "stable" value: 4 } } }'
    (config,) = read_model_configs(write(tmp_path, text))
    assert (config.name, config.base_path, dict(config.version_labels)) == ("a", "/m/a", {"stable": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"at least one model.*Received: the names \[\]"),
        (
            'model_config_list { config { name: "a" base_path: "b" } config { name: "a" base_path: "b" } }',
            "another name",
        ),
        ('model_config_list { config { name: "a" } }', "Received: name `a`, base_path ``"),
        ('model_config_list { config { name: "a" base_path: "b" model_platform: "torch" } }', "model_platform `torch`"),
        ("model_list {}", "must be a ModelServerConfig as a text protocol buffer. Received: .*a.config"),
    ],
)
def test_wrong_model_configs(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_model_configs(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="must be a ModelServerConfig.*absent.config"):
        read_model_configs(tmp_path / "absent.config")


def test_empty_name():
    with pytest.raises(ValueError, match="Received: name ``"):
        build_model_config("", "b")


def test_metrics_path(tmp_path):
    assert read_metrics_path(write(tmp_path, 'prometheus_config { enable: true path: "/m" }')) == "/m"
    assert read_metrics_path(write(tmp_path, "prometheus_config { enable: true }")) == "/monitoring/prometheus/metrics"
    assert read_metrics_path(write(tmp_path, 'prometheus_config { path: "/m" }')) == ""
    with pytest.raises(ValueError, match="begin with a slash. Received: `m`"):
        read_metrics_path(write(tmp_path, 'prometheus_config { enable: true path: "m" }'))


def test_tls_config_must_fit_together(tmp_path):
    with pytest.raises(ValueError, match="must be PEM, and the key that of the certificate. Received: .*a.config"):
        read_tls_config(write(tmp_path, 'server_key: "a.key" server_cert: "a.crt"'))
    with pytest.raises(ValueError, match="must have a custom_ca"):
        read_tls_config(write(tmp_path, "client_verify: true"))
