"""What beam/dataflow/ says, read against Beam's options, the pinned versions and the repository."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import string
import tomllib
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from tf_lift.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "beam" / "dataflow"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def read_exports() -> dict[str, str]:
    """The variables that the page sets, expanded."""
    values: dict[str, str] = {}
    for name, value in re.findall(r"^export (\w+)=(\S+)$", "".join(BLOCKS), re.MULTILINE):
        values[name] = string.Template(value).substitute(values)
    return values


def read_command() -> list[str]:
    """The words of the page's command as a shell would pass them."""
    (block,) = [block for block in BLOCKS if block.startswith("python -m beam.preprocess")]
    return shlex.split(string.Template(block.replace("\\\n", " ")).substitute(read_exports()))


def split_own(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and those that go to Beam."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--staging")
    return parser.parse_known_args(words)


def find_unknown(arguments: list[str]) -> set[str]:
    """Options that none of Beam's classes declares."""
    options = PipelineOptions(arguments)
    return set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options())


COMMAND = read_command()
OWN, BEAM = split_own(COMMAND[3:])
OPTIONS = PipelineOptions(BEAM)


class DataflowRunner:
    """Stands for Dataflow's, which needs the extra gcp: Beam's validator goes by the name."""


def test_the_command_is_found_whole():
    assert COMMAND[:3] == ["python", "-m", "beam.preprocess"]
    assert not [word for word in COMMAND if "$" in word]
    assert all(word.startswith("--") for word in BEAM)


def test_unknown_options_are_noticed():
    assert find_unknown(["--runner=DataflowRunner", "--max_workers=3"]) == {"max_workers"}
    assert find_unknown(["--no_public_ips"]) == {"no_public_ips"}


def test_beam_knows_every_option():
    assert find_unknown(BEAM) == set()


def test_options_arrive():
    cloud, worker = OPTIONS.view_as(GoogleCloudOptions), OPTIONS.view_as(WorkerOptions)
    assert OPTIONS.view_as(StandardOptions).runner == "DataflowRunner"
    assert (cloud.project, cloud.region) == ("my-project", "us-central1")
    assert cloud.staging_location == "gs://my-bucket/dataflow/staging"
    assert cloud.temp_location == "gs://my-bucket/dataflow/temp"
    assert cloud.service_account_email == "tf-lift-worker@my-project.iam.gserviceaccount.com"
    assert worker.sdk_container_image == "us-central1-docker.pkg.dev/my-project/tf-lift/worker:0.1.0"
    assert (worker.machine_type, worker.disk_size_gb) == ("n2-highmem-4", 200)
    assert worker.disk_type.endswith("/diskTypes/pd-ssd")
    assert 0 < worker.num_workers < worker.max_num_workers
    assert worker.autoscaling_algorithm == "THROUGHPUT_BASED"
    assert worker.use_public_ips is False
    assert OPTIONS.view_as(SetupOptions).sdk_location == "container"
    assert OPTIONS.view_as(DebugOptions).experiments == ["use_runner_v2", "no_use_multiple_sdk_containers"]


def test_beams_validator_finds_no_fault():
    validator = PipelineOptionsValidator(OPTIONS, DataflowRunner())
    cloud, worker = OPTIONS.view_as(GoogleCloudOptions), OPTIONS.view_as(WorkerOptions)
    assert validator.is_service_runner()
    assert validator.validate_cloud_options(cloud) == []
    for name in ("staging_location", "temp_location"):
        assert validator.validate_gcs_path(cloud, name) == []
    assert worker.validate(validator) == []


@pytest.mark.parametrize("option", ["--job_name=Tf_lift", "--project=12345"])
def test_beams_validator_finds_faults(option):
    options = PipelineOptions([*BEAM, option])
    validator = PipelineOptionsValidator(options, DataflowRunner())
    assert len(validator.validate_cloud_options(options.view_as(GoogleCloudOptions))) == 1


def test_own_options_are_usable():
    config = load_config(ROOT / OWN.config, OWN.set)
    assert config.name == "taobao_full"
    assert config.source.paths == ("gs://my-bucket/taobao/UserBehavior-*.csv",)
    assert OWN.staging == "gs://my-bucket/tf-lift/staging"


def test_every_option_of_the_command_is_explained():
    rows = re.findall(r"^\| (`--.*?) \|", README, re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`(--\w+)`", row)}
    assert explained == {word.split("=")[0] for word in COMMAND if word.startswith("--")}


def test_options_of_the_text_are_known():
    others = set(re.findall(r"`(--\w+(?:=[^`\s]+)?)`", README)) - {"--config", "--set", "--staging"}
    named = [option for option in others if "=" in option]
    assert "--extra_package=dist/tf_lift-0.1.0-py3-none-any.whl" in named
    assert find_unknown(named) == set()
    assert (
        OPTIONS.view_as(SetupOptions).setup_file is None
    )  # `--setup_file` is an option, which the page advises against


# The image


def read_dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


DOCKERFILE = read_dockerfile()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def arguments_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in DOCKERFILE if name == instruction]


def copied_paths() -> list[str]:
    return [source for arguments in arguments_of("COPY") for source in arguments.split()[:-1]]


def test_the_image_has_the_pinned_beam_and_our_python():
    (image,) = arguments_of("FROM")
    python, version = re.fullmatch(r"apache/beam_python(\d\.\d+)_sdk:(\d+\.\d+\.\d+)", image).groups()
    pins = re.findall(r"^apache-beam==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert [version] == pins
    assert PYPROJECT["project"]["requires-python"].startswith(f">={python},")
    assert f'"apache-beam[gcp]=={version}"' in README


def test_what_the_image_copies_is_there():
    paths = copied_paths()
    assert not [path for path in paths if not (ROOT / path).exists()]
    packages = {name.split(".")[0] for name in PYPROJECT["tool"]["setuptools"]["packages"]}
    assert packages == {path for path in paths if (ROOT / path).is_dir()}
    project = PYPROJECT["project"]
    assert {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]} <= set(paths)


def test_the_image_is_installed_with_the_constraints():
    (install,) = [arguments for arguments in arguments_of("RUN") if "pip install" in arguments]
    assert "--constraint constraints.txt ." in install
    assert "pip check" in install
    names = [name for name, _ in DOCKERFILE]
    last_copy = max(index for index, name in enumerate(names) if name == "COPY")
    assert last_copy < DOCKERFILE.index(("RUN", install))


def test_the_image_keeps_beams_entrypoint_and_no_secret():
    assert {name for name, _ in DOCKERFILE} == {"FROM", "ENV", "WORKDIR", "COPY", "RUN"}
    assert arguments_of("ENV") == ["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1"]
    assert not [path for path in copied_paths() if path in (".", "*") or os.path.basename(path).startswith(".")]
