"""`make serve`: what it starts, and what it says where something is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "serving" / "tf_serving"
NAME = "complete_journey"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    version = tmp_path / "my models" / NAME / "3"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    return tmp_path / "my models"


def write_docker(folder: Path, failing: str = "no such command") -> Path:
    """A docker command that notes what it is asked, and fails where asked for `failing`."""
    command = folder / "docker"
    command.write_text(
        f'#!/bin/sh\necho "$TF_LIFT_MODELS: $*" >> "{folder}/asked"\ncase "$*" in *"{failing}"*) exit 1;; esac\n',
        encoding="utf-8",
    )
    command.chmod(0o755)
    return command


def serve(models: Path, docker: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--silent", "serve", f"MODELS={models}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DOCKER": str(docker)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("files", [["docker-compose.yml"], ["docker-compose.yml", "docker-compose.gpu.yml"]])
def test_starts_the_compose_files_on_the_models(models: Path, tmp_path: Path, files: list[str]) -> None:
    finished = serve(models, write_docker(tmp_path), *(["GPU=1"] if len(files) > 1 else []))
    assert finished.returncode == 0, finished.stderr
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()[-1]
    options = " ".join(f"--file serving/tf_serving/{name}" for name in files)
    assert asked == f"{models}: compose {options} up --detach --wait"
    assert "localhost:8500 (gRPC)" in finished.stdout and f"{options} down" in finished.stdout


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("compose version", "Docker's Compose plugin must be installed. Received: `"),
        ("info", "Docker's daemon must run, and you must be allowed to use it. Received: `"),
    ],
)
def test_says_what_is_missing_and_what_to_run_instead(models: Path, tmp_path: Path, failing: str, message: str) -> None:
    finished = serve(models, write_docker(tmp_path, failing))
    assert finished.returncode != 0 and not finished.stdout
    assert finished.stderr.startswith(f"serve: {message}")
    assert f'python -m serving.local --model_base_path "{models}/{NAME}" --model_name {NAME}' in finished.stderr
    assert " up " not in (tmp_path / "asked").read_text(encoding="utf-8")


def test_says_that_docker_is_missing(models: Path) -> None:
    finished = serve(models, "docker-of-nobody")
    assert finished.returncode != 0
    assert finished.stderr.startswith("serve: Docker must be installed. Received: no command `docker-of-nobody`.")
    assert "python -m serving.local" in finished.stderr


def test_says_that_the_server_stays_unhealthy(models: Path, tmp_path: Path) -> None:
    finished = serve(models, write_docker(tmp_path, " up "))
    assert finished.returncode != 0 and not finished.stdout
    assert "serve: The server must become healthy." in finished.stderr and "logs" in finished.stderr


def test_wants_an_exported_version(tmp_path: Path) -> None:
    (tmp_path / NAME / "1.partial").mkdir(parents=True)
    finished = serve(tmp_path, write_docker(tmp_path))
    assert finished.returncode != 0
    assert (
        f"An exported version must be there. Received: no {tmp_path}/{NAME}/<version>/saved_model.pb. Run `make demo`"
        in finished.stderr
    )
    assert not (tmp_path / "asked").exists()
