"""Runs that write through a staging folder in an object store, that of test_storage.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileSystem

from beam import preprocess
from tf_lift.workspace import Workspace

THREADS = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
STAGING = "vault://bucket/staging"


def find_vault_variable() -> str:
    """The environment variable of vault://, which Beam knows afterwards. Beam allows one class of a scheme, so it is loaded once."""
    loaded = {kind.__module__ for kind in FileSystem.get_all_subclasses() if kind.scheme() == "vault"}
    if not loaded:
        name = "tests.beam.test_storage"
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("test_storage.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        loaded = {name}
    (name,) = loaded
    return sys.modules[name].VAULT


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and beside it a temporary folder of the run's own."""
    store, temporary = tmp_path / "store", tmp_path / "temporary"
    store.mkdir()
    temporary.mkdir()
    monkeypatch.setenv(find_vault_variable(), str(store))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return store


def assert_nothing_is_left(store: Path) -> None:
    """Neither objects, except the list of those that were read, nor copies of them nor files aside."""
    assert {path.name for path in store.iterdir()} <= {"downloads"}
    copies = [path.name for path in (store.parent / "temporary").iterdir()]
    assert not [name for name in copies if name.startswith("tf_lift-") or name.endswith(".partial")]


@pytest.mark.parametrize("beam_arguments", [(), THREADS], ids=["one", "threads"])
@pytest.mark.parametrize("join", ["broadcast", "grouped"])
def test_a_staged_data_set_is_the_local_one(kit, store, tmp_path, join, beam_arguments):
    log, base = kit.base("rolling", "none")
    cuts = {"num_shards": 3, "example_shards": 2, "join": join}
    config = kit.build_config(log.write(tmp_path / "input"), tmp_path / "workspace", "rolling", pipeline=cuts)
    manifest = preprocess.run(config, beam_arguments, staging=f"{STAGING}/")
    staged, local = kit.Output(config, manifest).files(), base.files()
    assert staged.pop("manifest.json") and local.pop("manifest.json")  # the configurations differ
    assert staged.keys() == local.keys() and len(staged) > 30
    assert [name for name in staged if staged[name] != local[name]] == []
    assert manifest["counts"] == base.manifest["counts"]
    read = (store / "downloads").read_text().splitlines()
    assert len(read) > len(staged) and all(url.startswith(f"{STAGING}/small-") for url in read)
    assert_nothing_is_left(store)


def test_runs_that_share_a_staging_folder_do_not_meet(kit, store, tmp_path):
    paths = kit.random_log(num_rows=300).write(tmp_path / "input")
    for name in ("one", "other"):
        preprocess.run(kit.build_config(paths, tmp_path / name), staging=STAGING)
    folders = {url.removeprefix(f"{STAGING}/").split("/")[0] for url in (store / "downloads").read_text().splitlines()}
    assert len(folders) == 2
    assert_nothing_is_left(store)


def test_a_staged_run_that_fails_leaves_the_rejected_rows_where_its_message_says(kit, store, tmp_path):
    paths = kit.random_log(num_rows=300).write(tmp_path / "input")
    with open(paths[0], "a", encoding="utf-8") as file:
        file.write("broken\n" * 100)
    config = kit.build_config(paths, tmp_path / "workspace")
    with pytest.raises(ValueError, match=r"Received: 100 of 400.*dataset\.partial/rejected"):
        preprocess.run(config, staging=STAGING)
    rejected = Workspace(config).root / "dataset.partial" / "rejected" / "00000-log-0.csv.tsv"
    assert len(rejected.read_text(encoding="utf-8").splitlines()) == 100
    assert_nothing_is_left(store)
