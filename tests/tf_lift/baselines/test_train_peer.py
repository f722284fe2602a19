"""Every ranker of the registry through one door: the scores' order, resuming, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_lift.baselines import train_peer
from tf_lift.baselines.no_learning import score_baselines
from tf_lift.baselines.own_model import override_config
from tf_lift.baselines.ranker_job import RankerJob
from tf_lift.baselines.registry import RANKERS, find_ranker
from tf_lift.baselines.train_peer import SPLITS, run, train_and_score
from tf_lift.workspace import Workspace

FAST = {"num_epochs": 1, "pool_epochs": 1, "hidden_dims": [8], "embedding_dim": 4}
FAST_TOO = {"pretraining_epochs": 1, "num_trees": 20, "training.num_epochs": 1}  # of other rankers


@pytest.fixture(scope="module")
def labelled(tiny: Any) -> Workspace:
    return Workspace(tiny.dataset().config)


@pytest.fixture(scope="module")
def honest(tiny: Any) -> Workspace:
    return Workspace(tiny.dataset(*tiny.honest).config)


def job_of(workspace: Workspace, folder: Path) -> RankerJob:
    return RankerJob("", workspace, {}, 7, folder, SPLITS)


@pytest.mark.parametrize("name", list(RANKERS))
def test_entry_names_what_is_there(name: str, tiny: Any) -> None:
    entry = RANKERS[name]
    assert callable(entry.build)
    for key, value in entry.fixed.items():
        override_config(tiny.load(), {key: value})
    assert entry.name == name and entry.source
    settings = entry.read_settings({})
    spaces = (entry.search_space, entry.rolling_space, entry.ranking_space, entry.tables_space)
    for key, values in (item for space in spaces for item in space.items()):
        assert values and len(set(values)) == len(values)
        for value in values:
            if entry.settings_class is None:
                override_config(tiny.load(), {key: value})
            else:
                assert getattr(entry.read_settings({key: value}), key) == value
                assert hasattr(settings, key)


def test_what_a_ranker_depends_on_in_a_configuration(tiny: Any) -> None:
    plain = tiny.load()
    ours = {name for name, entry in RANKERS.items() if entry.kind == "ours" or name.startswith("lift")}
    assert len(ours) > 2
    for key, value, depends in (
        ("encoder.dropout_rate", 0.55, ours),
        ("situation.history_rows", 3, ours),
        ("training.batch_size", 5, set(RANKERS)),
        ("retrieval.context_length", 11, set(RANKERS)),
    ):
        changed = override_config(plain, {key: value})
        assert {
            name for name, entry in RANKERS.items() if entry.hash_config(changed) != entry.hash_config(plain)
        } == depends


@pytest.mark.parametrize("ranker", [name for name, entry in RANKERS.items() if entry.kind == "learned"])
def test_single_candidates(labelled: Workspace, tmp_path: Path, ranker: str) -> None:
    cls = RANKERS[ranker].settings_class
    known = [field.name for field in dataclasses.fields(cls)] if cls else ["training.num_epochs"]
    settings = {key: value for key, value in (FAST | FAST_TOO).items() if key in known}
    scores = train_and_score(labelled, ranker, settings, 3, tmp_path / "one")
    job = job_of(labelled, tmp_path)
    assert (len(scores.validation), len(scores.test)) == tuple(len(job.candidates(split).labels) for split in SPLITS)
    assert scores.is_probability and ((scores.test > 0) & (scores.test < 1)).all()
    assert scores.num_parameters > 0 and scores.seconds["fit"] > 0


def test_a_peer_may_have_batches_of_its_own(
    labelled: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, set[int]] = {"train": set(), "test": set()}
    read = train_peer.RankerJob.examples

    def note(job: RankerJob, split: str, *arguments: Any) -> Any:
        batches = read(job, split, *arguments)
        sizes.get(split, set()).update(len(batch["label"]) for batch in batches.take(1))
        return batches

    monkeypatch.setattr(train_peer.RankerJob, "examples", note)
    configured = labelled.config.training.batch_size
    own = train_and_score(labelled, "deepfm", FAST | {"batch_size": 8}, 7, tmp_path / "own")
    assert sizes == {"train": {8}, "test": {configured}} and configured != 8
    shared = train_and_score(labelled, "deepfm", FAST, 7, tmp_path / "shared")
    assert sizes["train"] == {8, configured} and not np.array_equal(own.test, shared.test)


def test_seed_decides(labelled: Workspace, tmp_path: Path) -> None:
    one, again, other = (
        train_and_score(labelled, "deepfm", FAST, seed, tmp_path / folder).test
        for seed, folder in ((3, "one"), (3, "two"), (4, "two"))
    )
    np.testing.assert_allclose(again, one, rtol=1e-4)
    assert np.abs(other - one).max() > 1e-3


@pytest.mark.parametrize("loss", ["pointwise", "listwise"])
def test_slates(honest: Workspace, tmp_path: Path, loss: str) -> None:
    scores = train_and_score(honest, "deepfm", FAST | {"loss": loss}, 3, tmp_path)
    assert len(scores.test) == len(job_of(honest, tmp_path).candidates("test").labels)
    assert scores.is_probability == (loss == "pointwise")
    assert np.isfinite(scores.validation_loss)


def test_a_cosine_ends_with_the_last_step(
    labelled: Workspace, tmp_path: Path, check_decay: Callable[..., None]
) -> None:
    settings = FAST | {"learning_rate": 0.01, "learning_rate_decay": "cosine", "num_epochs": 2, "patience": 1}
    check_decay(train_peer, lambda: train_and_score(labelled, "deepfm", settings, 3, tmp_path), 0.01)


def test_scores_are_read_again_and_a_killed_run_goes_on(labelled: Workspace, tmp_path: Path) -> None:
    scores = train_and_score(labelled, "deepfm", FAST, 3, tmp_path)
    shutil.move(tmp_path / "fit", tmp_path / "moved")
    np.testing.assert_array_equal(train_and_score(labelled, "deepfm", FAST, 3, tmp_path).test, scores.test)
    assert not (tmp_path / "fit").exists()  # nothing was trained
    shutil.move(tmp_path / "moved", tmp_path / "fit")
    (tmp_path / "scores.json").unlink()
    checkpoint = (tmp_path / "fit" / "latest" / "checkpoint").stat().st_mtime_ns
    np.testing.assert_allclose(train_and_score(labelled, "deepfm", FAST, 3, tmp_path).test, scores.test, rtol=1e-5)
    assert (tmp_path / "fit" / "latest" / "checkpoint").stat().st_mtime_ns == checkpoint
    train_and_score(labelled, "deepfm", FAST | {"dropout_rate": 0.5}, 3, tmp_path)
    assert (tmp_path / "fit" / "latest" / "checkpoint").stat().st_mtime_ns > checkpoint


def test_validation_alone(labelled: Workspace, tmp_path: Path) -> None:
    scores = train_and_score(labelled, "deepfm", FAST, 3, tmp_path, ["validation"])
    assert len(scores.validation) and not len(scores.test)
    both = train_and_score(labelled, "deepfm", FAST, 3, tmp_path)
    np.testing.assert_allclose(both.validation, scores.validation, rtol=1e-5)
    assert len(both.test)


def test_rules_are_those_of_the_evaluation(labelled: Workspace, tmp_path: Path) -> None:
    scores = train_and_score(labelled, "popularity", {}, 3, tmp_path)
    job = job_of(labelled, tmp_path)
    until = job.dataset.info.boundaries.test_from
    known = [job.candidates("train"), job.candidates("validation")]
    expected = score_baselines(job.dataset, known, job.candidates("test"), until)["popularity"][0]
    np.testing.assert_array_equal(scores.test, expected)
    assert not scores.is_probability and scores.num_parameters == 0


def test_own_predictor_scores_as_the_evaluation_does(tiny: Any, tmp_path: Path) -> None:
    trained = tiny.trained()
    scores = train_and_score(trained, "tf_lift", {}, trained.config.seed, tmp_path)
    with np.load(trained.stage_dir("evaluate") / "candidates.npz") as evaluated:
        np.testing.assert_allclose(scores.test, evaluated["probabilities"], rtol=1e-3, atol=1e-4)
    other = train_and_score(trained, "tf_lift", {"predictor.hidden_dims": [4]}, trained.config.seed, tmp_path)
    assert np.abs(other.test - scores.test).max() > 1e-3
    assert other.num_parameters < scores.num_parameters


def test_command_writes_its_metrics(honest: Workspace) -> None:
    results = run(honest, "popularity", {})
    path = honest.run_dir / "rankers" / "popularity" / "metrics.json"
    assert json.loads(path.read_text(encoding="utf-8")) == results
    assert {"AUC", "LogLoss", "HR@10", "NDCG@10"} <= set(results["test"])
    assert 'protocol "honest"' in results["protocol"]


@pytest.mark.parametrize(
    ("ranker", "settings", "message"),
    [
        ("dinn", {}, "Unknown ranker. Received: 'dinn'. Did you mean 'din'?"),
        (
            "din",
            {"droput_rate": 0.1},
            "Unknown setting of ranker 'din'. Received: 'droput_rate'. Did you mean 'dropout_rate'?",
        ),
        ("din", {"dropout_rate": "much"}, "must be of type float, such as 0.2. Received: 'much'"),
        ("din", {"dropout_rate": 0.95}, "`dropout_rate` must be from 0.0 to 0.9. Received: 0.95"),
        ("popularity", {"strength": 1}, "Received: 'strength'. Known settings: none"),
        (
            "tf_lift",
            {"predictor.droput": 0},
            "must read section.key.* Received: 'predictor.droput'. Known keys of 'predictor'",
        ),
        ("tf_lift", {"retrieval.num_neighbours": 3}, "stale"),
    ],
)
def test_what_is_refused(
    labelled: Workspace, tmp_path: Path, ranker: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        train_and_score(labelled, ranker, settings, 3, tmp_path)


def test_a_rule_of_other_labels_is_refused(honest: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs labels of negatives.protocol 'none'. Received: 'honest'. Leave it out"):
        train_and_score(honest, "user rate + item rate, up to t", {}, 3, tmp_path)


def test_find_ranker() -> None:
    assert find_ranker("din") is RANKERS["din"]
