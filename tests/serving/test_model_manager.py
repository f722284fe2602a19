"""The life of versions, with models that are only a name and a number."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import grpc
import pytest
from tensorflow_serving.apis import model_pb2

from serving.model_manager import END, ModelManager
from serving.request_error import RequestError
from serving.server_configs import build_model_config

POLL_SECONDS = 0.02


def load(name, version, path):
    """Loads a folder whose file says `good`."""
    if (path / "model").read_text() != "good":
        raise KeyError("damaged")
    return SimpleNamespace(name=name, version=version)


def add_version(base_path, version: int, content: str = "good") -> None:
    aside = base_path / f"{version}.tmp"
    aside.mkdir(parents=True)
    (aside / "model").write_text(content)
    aside.rename(base_path / str(version))


def spec_of(name: str, version: int | None = None, label: str | None = None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return spec


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def config(tmp_path):
    add_version(tmp_path, 1)
    return build_model_config("tiny", tmp_path)


@pytest.fixture
def start():
    started = []

    def start_manager(*configs, load=load) -> ModelManager:
        started.append(ModelManager(configs, load, POLL_SECONDS))
        started[-1].start()
        return started[-1]

    yield start_manager
    for manager in started:
        manager.stop(10)


def states(manager: ModelManager) -> dict[tuple[str, int], str]:
    return {(name, version): state for name, version, state in manager.list_states()}


def version_of(manager: ModelManager, spec: model_pb2.ModelSpec) -> int:
    with manager.use(spec) as model:
        return model.version


def test_new_version_takes_over_and_the_old_one_goes_after_its_last_request(config, start, tmp_path):
    manager = start(config)
    with manager.use(spec_of("tiny")) as old:
        add_version(tmp_path, 2)
        wait_until(lambda: states(manager).get(("tiny", 1)) == "UNLOADING")
        assert version_of(manager, spec_of("tiny")) == 2
        assert old.version == 1
        with pytest.raises(RequestError, match=r"has the versions \[2\] of `tiny`. Received: version 1") as missing:
            version_of(manager, spec_of("tiny", 1))
        assert missing.value.code == grpc.StatusCode.NOT_FOUND
    wait_until(lambda: states(manager) == {("tiny", 1): "END", ("tiny", 2): "AVAILABLE"})


def test_old_version_serves_while_the_new_one_loads(config, start, tmp_path):
    may_load = threading.Event()

    def load_slowly(name, version, path):
        if version == 2:
            may_load.wait(10)
        return load(name, version, path)

    manager = start(config, load=load_slowly)
    add_version(tmp_path, 2)
    wait_until(lambda: states(manager).get(("tiny", 2)) == "LOADING")
    assert version_of(manager, spec_of("tiny")) == 1
    may_load.set()
    wait_until(lambda: version_of(manager, spec_of("tiny")) == 2)


def test_damaged_version_leaves_the_old_one_serving_and_is_tried_again_once_it_changes(config, start, tmp_path):
    loads = []

    def load_counted(name, version, path):
        loads.append(version)
        return load(name, version, path)

    manager = start(config, load=load_counted)
    add_version(tmp_path, 2, "bad")
    wait_until(lambda: states(manager).get(("tiny", 2)) == "END")
    time.sleep(5 * POLL_SECONDS)
    assert loads == [1, 2]
    assert version_of(manager, spec_of("tiny")) == 1
    (failed, _) = manager.statuses(spec_of("tiny"))
    assert failed == (2, END, "'damaged'")

    (tmp_path / "2" / "model").write_text("good")
    wait_until(lambda: version_of(manager, spec_of("tiny")) == 2)


def test_folder_that_vanishes_leaves_its_version_serving(config, start, tmp_path):
    manager = start(config)
    (tmp_path / "1").rename(tmp_path / "gone")
    time.sleep(5 * POLL_SECONDS)
    assert version_of(manager, spec_of("tiny")) == 1


def test_going_back_to_an_older_version(config, start, tmp_path):
    add_version(tmp_path, 2)
    manager = start(config)
    assert version_of(manager, spec_of("tiny")) == 2
    (tmp_path / "2").rename(tmp_path / "2.bad")
    wait_until(lambda: version_of(manager, spec_of("tiny")) == 1)


def test_labels_and_numbers_choose_a_version(config, start, tmp_path):
    add_version(tmp_path, 2)
    config.model_version_policy.all.SetInParent()
    config.version_labels["stable"] = 1
    manager = start(config)
    assert version_of(manager, spec_of("tiny")) == 2
    assert version_of(manager, spec_of("tiny", label="stable")) == 1
    assert version_of(manager, spec_of("tiny", 1)) == 1
    assert [status[0] for status in manager.statuses(spec_of("tiny", label="stable"))] == [1]
    with pytest.raises(RequestError, match=r"version labels \['stable'\]. Received: `canary`") as missing:
        version_of(manager, spec_of("tiny", label="canary"))
    assert missing.value.code == grpc.StatusCode.NOT_FOUND


def test_start_fails_with_what_is_wrong(config, start, tmp_path):
    add_version(tmp_path, 2, "bad")
    with pytest.raises(ValueError, match="damaged"):
        start(config)
    config.model_version_policy.specific.versions.append(1)
    config.version_labels["stable"] = 2
    with pytest.raises(ValueError, match="Received: `stable` for version 2 of `tiny`"):
        start(config)


def test_reload_moves_a_label_and_the_policy_together(config, start, tmp_path):
    config.version_labels["stable"] = 1
    config.model_version_policy.specific.versions.append(1)
    manager = start(config)
    add_version(tmp_path, 2)
    new = build_model_config("tiny", tmp_path)
    new.version_labels["stable"] = 2
    manager.reload([new])
    assert version_of(manager, spec_of("tiny", label="stable")) == 2
    assert states(manager) == {("tiny", 1): "END", ("tiny", 2): "AVAILABLE"}


def test_reload_that_fails_changes_nothing(config, start, tmp_path):
    manager = start(config)
    other = tmp_path / "other"
    add_version(other, 5, "bad")
    with pytest.raises(RequestError, match="damaged") as failed:
        manager.reload([config, build_model_config("other", other)])
    assert failed.value.code == grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(RequestError, match="keeps its base path. Received: .*other for `tiny`") as failed:
        manager.reload([build_model_config("tiny", other)])
    assert failed.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert states(manager) == {("tiny", 1): "AVAILABLE"}
    assert version_of(manager, spec_of("tiny")) == 1
