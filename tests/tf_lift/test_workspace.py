"""Fresh, stale, missing and half-written artefacts."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tf_lift.config import Behaviour, Config, Encoder, Negatives, Predictor, Retrieval, Source, Split
from tf_lift.schema import Field
from tf_lift.workspace import Workspace, write_json


@pytest.fixture
def config(tmp_path: Path) -> Config:
    fields = (Field("user", "user", key=True), Field("item", "item", key=True))
    return Config(
        "small", Source(("log.csv",)), fields, behaviour=Behaviour("column", "label"), workspace=str(tmp_path)
    )


def make(workspace: Workspace, *stages: str, **manifest: object) -> None:
    for stage in stages:
        with workspace.writing(stage, {"made": stage, **manifest}) as folder:
            (folder / "data").write_text(stage, encoding="utf-8")


def test_an_artefact_appears_with_its_manifest_when_the_block_ends(config):
    workspace = Workspace(config)
    with workspace.writing("dataset", {"rows": 3}) as folder:
        (folder / "data").write_text("x", encoding="utf-8")
        assert not workspace.dataset_dir.exists() and not workspace.is_fresh("dataset")
    assert (workspace.dataset_dir / "data").read_text(encoding="utf-8") == "x"
    manifest = workspace.check_fresh("dataset")
    assert (manifest["stage"], manifest["rows"], manifest["fingerprint"]) == (
        "dataset",
        3,
        workspace.fingerprint("dataset"),
    )
    assert [path.name for path in workspace.root.iterdir()] == ["dataset"]


def test_a_block_that_fails_leaves_the_former_artefact(config):
    workspace = Workspace(config)
    make(workspace, "dataset")
    with pytest.raises(RuntimeError, match="half-way"), workspace.writing("dataset", {}) as folder:
        (folder / "data").write_text("half", encoding="utf-8")
        raise RuntimeError("half-way")
    assert (workspace.dataset_dir / "data").read_text(encoding="utf-8") == "dataset"
    make(workspace, "dataset")
    assert [path.name for path in workspace.root.iterdir()] == ["dataset"]


def test_left_over_folders_of_a_killed_run_are_no_artefact(config):
    workspace = Workspace(config)
    make(workspace, "dataset")
    shutil.move(workspace.dataset_dir, workspace.root / "dataset.replaced")
    (workspace.root / "dataset.partial").mkdir()
    (workspace.root / "dataset.partial" / "manifest.json").write_text("{}", encoding="utf-8")
    assert workspace.read_manifest("dataset") is None and not workspace.is_fresh("dataset")
    make(workspace, "dataset")
    assert [path.name for path in workspace.root.iterdir()] == ["dataset"]


@pytest.mark.parametrize("removed", range(4))
def test_no_moment_of_the_replacement_shows_half_an_artefact(config, monkeypatch, removed):
    """The process dies after removing some files of a folder: no folder with a manifest lacks a file."""
    workspace = Workspace(config)
    with workspace.writing("dataset", {}) as folder:
        for name in ("a", "b", "z"):
            (folder / name).write_text("old", encoding="utf-8")

    def remove_some(folder: Path, ignore_errors: bool = False) -> None:
        names = (
            sorted((path.name for path in Path(folder).iterdir()), key=lambda name: name == "manifest.json")
            if Path(folder).exists()
            else []
        )
        for name in names[:removed]:
            (Path(folder) / name).unlink()
        if names:
            raise KeyboardInterrupt

    monkeypatch.setattr("tf_lift.workspace.shutil.rmtree", remove_some)
    with pytest.raises(KeyboardInterrupt), workspace.writing("dataset", {}) as folder:
        for name in ("a", "b", "z"):
            (folder / name).write_text("new", encoding="utf-8")
    if workspace.read_manifest("dataset") is not None:
        texts = {
            path.name: path.read_text(encoding="utf-8")
            for path in workspace.dataset_dir.iterdir()
            if path.suffix != ".json"
        }
        assert set(texts) == {"a", "b", "z"} and len(set(texts.values())) == 1


def test_a_stage_is_stale_when_its_own_sections_change_and_only_then(config):
    make(Workspace(config), "dataset", "pretrain")
    other = Workspace(dataclasses.replace(config, predictor=Predictor(raw_inputs=False)))
    assert other.is_fresh("dataset") and other.is_fresh("pretrain")
    other = Workspace(dataclasses.replace(config, encoder=Encoder(state_dim=64)))
    assert other.is_fresh("dataset") and not other.is_fresh("pretrain")
    with pytest.raises(
        ValueError, match=r"stage 'pretrain' is stale: .* Run `python -m tf_lift.train --stages pretrain`"
    ):
        other.check_fresh("pretrain")
    other = Workspace(dataclasses.replace(config, retrieval=Retrieval(num_neighbours=3)))
    assert not other.is_fresh("dataset") and not other.is_fresh("pretrain")
    with pytest.raises(ValueError, match=r"stage 'dataset' is stale: .* Run `python -m beam.preprocess`"):
        other.check_fresh("pretrain")


def make_dataset(workspace: Workspace, log: str = "a", neighbours: str = "a", **manifest: object) -> None:
    with workspace.writing("dataset", manifest) as folder:
        (folder / "examples").mkdir()
        (folder / "interactions-00000-of-00001.tfrecord").write_text(log, encoding="utf-8")
        (folder / "examples" / "train-00000-of-00001.tfrecord").write_text(neighbours, encoding="utf-8")


def test_a_stage_is_stale_when_its_input_was_made_of_other_files(config):
    """The configuration is the same, but what the data set was made of is not."""
    workspace = Workspace(config)
    make_dataset(workspace)
    make(workspace, "pretrain", "encode", "fit")
    make_dataset(workspace)
    assert workspace.is_fresh("fit")  # the same again
    make_dataset(workspace, neighbours="b", inputs={"0:log.csv": "two"})
    assert workspace.is_fresh("encode") and not workspace.is_fresh("fit")
    for changed in ({"log": "b"}, {"boundaries": {"train_from": 1}}):
        make_dataset(workspace, **changed)
        assert workspace.is_fresh("dataset")
        assert not workspace.is_fresh("pretrain") and not workspace.is_fresh("encode")


def test_the_encoder_outlives_a_data_set_with_the_same_log_and_other_neighbours(config):
    workspace = Workspace(config)
    make_dataset(workspace)
    make(workspace, "pretrain", "encode", "fit")
    other = Workspace(dataclasses.replace(config, retrieval=Retrieval(num_neighbours=3)))
    make_dataset(other, neighbours="three of each")
    assert other.is_fresh("encode") and not other.is_fresh("fit")


@pytest.mark.parametrize(
    "change",
    [
        {"retrieval": Retrieval(context_length=50)},
        {"behaviour": Behaviour("threshold", "rating", 4.0)},
        {"negatives": Negatives(popularity_share=0.5)},
        {"split": Split(train_from=0.5)},
        {"fields": (Field("user", "user", key=True), Field("item", "item", key=True), Field("age", "user"))},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_encoder_is_stale_where_it_reads_the_same_log_otherwise(config, change):
    workspace = Workspace(config)
    make_dataset(workspace)
    make(workspace, "pretrain")
    other = Workspace(dataclasses.replace(config, **change))
    make_dataset(other)
    assert not other.is_fresh("pretrain")
    make_dataset(workspace)
    assert workspace.is_fresh("pretrain")


@pytest.mark.parametrize("name", ["windows.tfrecord", "users.npy", "items.npy", "vocabulary/item.tsv"])
def test_the_encoder_is_stale_where_a_file_that_it_reads_is_another(config, name):
    workspace = Workspace(config)

    def make_with(content: str) -> None:
        with workspace.writing("dataset", {}) as folder:
            (folder / "vocabulary").mkdir()
            (folder / name).write_text(content, encoding="utf-8")

    make_with("a")
    make(workspace, "pretrain")
    make_with("a")
    assert workspace.is_fresh("pretrain")
    make_with("b")
    assert not workspace.is_fresh("pretrain")


def test_an_earlier_data_set_that_does_not_tell_its_log_apart_is_an_input_as_a_whole(config):
    workspace = Workspace(config)
    make_dataset(workspace)
    path = workspace.dataset_dir / "manifest.json"
    manifest = {key: value for key, value in json.loads(path.read_text("utf-8")).items() if key != "log_content"}
    write_json(path, manifest)
    make(workspace, "pretrain")
    assert workspace.is_fresh("pretrain")
    write_json(path, manifest | {"content": "of other neighbours"})
    assert not workspace.is_fresh("pretrain")


def test_a_missing_input_is_named(config):
    workspace = Workspace(config)
    assert workspace.read_manifest("dataset") is None
    with pytest.raises(
        ValueError, match=r"stage 'dataset' must be there. Received: no manifest in .*dataset. Run `python -m beam.pre"
    ):
        workspace.check_fresh("dataset")
    with pytest.raises(ValueError, match="stage 'dataset' must be there"), workspace.writing("pretrain", {}):
        pytest.fail("the block must not begin without its input")


def test_json_replaces_what_was_there(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    write_json(tmp_path / "a.json", {"b": 2, "a": [2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [2], "b": 2} and text.endswith("}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
