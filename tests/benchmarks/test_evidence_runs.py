"""Which runs a comparison makes, and which it only reads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.evidence import run_list, run_rankers, run_store
from benchmarks.evidence.evaluation_set import BY_ITEM_ROWS, POOLED, EvaluationSet, read_evaluation_set
from benchmarks.evidence.run_list import Group, Row, find_groups, plan_rows
from benchmarks.evidence.run_rankers import Effort, run_rows
from benchmarks.evidence.run_store import RunResult, RunStore
from tf_lift import metrics, pretrain
from tf_lift.baselines.no_learning import Candidates, hash_candidates, loss_after_platt
from tf_lift.baselines.objective import Objective
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.baselines.registry import RankerEntry
from tf_lift.evaluate import describe_protocol
from tf_lift.slate_grid import is_ranking
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.trial_runner import OWN, TrialRunner
from tf_lift.tuning.tuning_result import TrialRow, TuningResult
from tf_lift.workspace import Workspace

ROOT = Path(__file__).parents[2]
IDENTITY = {"ranker": "a rule, up to t", "seed": 7, "settings": {"hidden_dims": (8, 4)}}
RULE = RankerEntry("rule", "nobody", "rule", "no:where")
PEER = RankerEntry("peer", "somebody", "learned", "no:where", protocols=("none",))
OURS = RankerEntry("ours", "us", "ours", "no:where")
QUICKLY = Effort((7, 8), 0, "random", False)


def make_evaluation(length: int = 1, digest: str = "hash") -> EvaluationSet:
    labels = np.tile(np.eye(1, length)[0], 6) if length > 1 else np.array([0.0, 1, 0, 1, 1, 0])
    columns = {POOLED: np.ones(6, bool)}
    slates = np.repeat(np.arange(6), length)
    validation = Candidates(np.zeros((len(labels), 2)), labels, slates, *[np.zeros(len(labels))] * 3)
    return EvaluationSet(labels, slates, np.array([0, 0, 1, 1, 2, 2]), columns, validation, "a protocol.", digest)


def make_source(folder: Path, *overrides: str) -> ConfigSource:
    """A configuration whose data set is an empty folder with a manifest."""
    source = ConfigSource(ROOT / "configs" / "tiny.toml", (f"workspace={folder}", *overrides))
    workspace = Workspace(source.load())
    if not workspace.is_fresh("dataset"):
        with workspace.writing("dataset", {}):
            pass
    return source


class Trainer:
    """Stands in for `train_and_score`, and notes what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, dict[str, Any]]] = []

    def __call__(
        self, workspace: Workspace, ranker: str, settings: dict[str, Any], seed: int, folder: Path
    ) -> RankerScores:
        self.calls.append((ranker, seed, dict(settings)))
        folder.mkdir(parents=True, exist_ok=True)
        if ranker == "broken":
            raise ValueError("A peer must learn. Received: nothing.")
        scores = np.random.default_rng(seed).random(6)
        return RankerScores(scores, scores, ranker != "rule", {"fit": 2.0, "score": 1.0}, 10, 0.5)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    fake = Trainer()
    monkeypatch.setattr(run_rankers, "train_and_score", fake)
    monkeypatch.setattr(run_rankers, "read_evaluation_set", lambda _: make_evaluation())
    return fake


def make_rows(source: ConfigSource, *entries: RankerEntry) -> tuple[Group, list[Row]]:
    return Group("tiny", make_evaluation(), (source,)), [Row(entry.name, entry, source) for entry in entries]


def test_store_reads_what_it_wrote_and_nothing_of_another_identity(tmp_path: Path) -> None:
    store, result = RunStore(tmp_path), RunResult(np.arange(3.0), np.ones(3), {"fit": 1.5}, 4, "hash", "code")
    store.write(IDENTITY, result)
    found = store.read(IDENTITY)
    assert (
        found is not None
        and found.scores.tolist() == [0, 1, 2]
        and (found.seconds, found.num_parameters) == ({"fit": 1.5}, 4)
        and found.code == "code"
    )
    assert store.read(IDENTITY | {"settings": {"hidden_dims": (8, 5)}}) is None
    other = IDENTITY | {"seed": 8}
    store.run_dir(IDENTITY).rename(store.run_dir(other))  # as if two hashes were one
    assert store.read(other) is None


def test_runs_once_a_seed_and_reads_the_second_time(tmp_path: Path, trainer: Trainer) -> None:
    group, rows = make_rows(make_source(tmp_path), RULE, PEER)
    first = run_rows(group, rows, QUICKLY)
    assert trainer.calls == [("rule", 7, {}), ("peer", 7, {}), ("peer", 8, {})]
    assert [outcome.facts["seeds"] for outcome in first] == [[7], [7, 8]]
    assert [outcome.facts["seconds"] for outcome in first] == [3.0, 3.0]
    assert not list(tmp_path.rglob("training"))
    validation = group.evaluation.validation
    losses = [loss_after_platt(np.random.default_rng(7).random(6), validation.labels)]
    losses += [metrics.log_loss(validation.labels, np.random.default_rng(seed).random(6)) for seed in (7, 8)]
    assert [outcome.facts["validation"] for outcome in first] == [
        {"LogLoss": pytest.approx(value)} for value in (losses[0], np.mean(losses[1:]))
    ]
    second = run_rows(group, rows, QUICKLY)
    assert len(trainer.calls) == 3
    for before, after in zip(first, second, strict=True):
        assert before.facts == after.facts
        weights = np.ones((1, 3))
        for one, two in zip(before.measured.runs, after.measured.runs, strict=True):
            assert np.array_equal(one.values(weights), two.values(weights))


def test_what_a_ranker_sets_itself_is_a_part_of_its_runs(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, rows = make_rows(make_source(tmp_path), dataclasses.replace(PEER, fixed_path="no:where"))
    for ratio in (0.6, 0.3, 0.3):
        monkeypatch.setattr(RankerEntry, "fixed", property(lambda _, ratio=ratio: {"pretraining.mask_ratio": ratio}))
        run_rows(group, rows, dataclasses.replace(QUICKLY, seeds=(7,)))
    assert len(trainer.calls) == 2


def test_a_result_without_its_validation_leaves_the_mean_unsaid(tmp_path: Path, trainer: Trainer) -> None:
    group, rows = make_rows(make_source(tmp_path), PEER)
    run_rows(group, rows, QUICKLY)
    path = next(path for path in tmp_path.rglob("result.json") if "seed_8" in str(path))
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "validation"})
    )
    (outcome,) = run_rows(group, rows, QUICKLY)
    assert outcome.facts["validation"] == {"LogLoss": None} and len(trainer.calls) == 2


def test_a_result_of_earlier_code_is_used_and_named(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, rows = make_rows(make_source(tmp_path), PEER)
    assert [outcome.facts["is_of_earlier_code"] for outcome in run_rows(group, rows, QUICKLY)] == [False]
    monkeypatch.setattr(run_rankers, "hash_code", lambda: "of today")
    assert [outcome.facts["is_of_earlier_code"] for outcome in run_rows(group, rows, QUICKLY)] == [True]
    assert len(trainer.calls) == 2


def test_code_is_what_preprocesses_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [SimpleNamespace(__name__=name, __path__=[str(tmp_path / name)]) for name in ("tf_lift", "beam")]
    for package in packages:
        monkeypatch.setattr(run_store, package.__name__, package)
        Path(package.__path__[0]).mkdir()
        (Path(package.__path__[0]) / "module.py").write_text("x = 1\n")
    hash_code = run_store.hash_code.__wrapped__
    first = hash_code()
    assert hash_code() == first
    (tmp_path / "beam" / "module.py").write_text("x = 2\n")
    assert hash_code() != first


def test_own_configurations_share_their_encoder(new_tiny: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_tiny()
    log.dataset()
    common = (*log.overrides(), "pretraining.num_epochs=1", "training.num_epochs=1")
    contexts = ("both", "none", "both")
    sources = [
        ConfigSource(log.toml, (*common, f"predictor.contexts={kind}", f"training.batch_size={16 + place}"))
        for place, kind in enumerate(contexts)
    ]
    pretrained: list[int] = []
    real = pretrain._train
    monkeypatch.setattr(
        pretrain, "_train", lambda model, *rest: (pretrained.append(model.config.seed), real(model, *rest))[1]
    )
    (group,) = find_groups(sources, run_rankers.make_data_set, wants_ranking=False)
    outcomes = run_rows(group, plan_rows(group, [OWN]), QUICKLY)
    assert [outcome.fault for outcome in outcomes] == [""] * 3
    assert pretrained == [7, 8]
    scores = [outcome.measured.runs[0].values(np.ones((1, group.evaluation.num_users))) for outcome in outcomes]
    assert not np.array_equal(scores[0], scores[1])
    assert not list(log.folder.rglob("encoders*"))
    results = [json.loads(path.read_text()) for path in log.folder.rglob("evidence/*/result.json")]
    for seed in (7, 8):  # each run says what its encoder cost, whichever run trained it
        seconds = [result["seconds"]["pretrain"] for result in results if result["identity"]["seed"] == seed]
        assert len(seconds) == 3 and len(set(seconds)) == 1
    (own,) = find_groups(sources[1:2], run_rankers.make_data_set, wants_ranking=False)
    shutil.rmtree(Workspace(sources[1].load()).root / "evidence")
    (unshared,) = run_rows(own, plan_rows(own, [OWN]), QUICKLY)
    np.testing.assert_array_equal(
        unshared.measured.runs[1].values(np.ones((1, own.evaluation.num_users))),
        outcomes[1].measured.runs[1].values(np.ones((1, own.evaluation.num_users))),
    )


def test_a_result_of_another_configuration_or_data_set_is_not_used(tmp_path: Path, trainer: Trainer) -> None:
    effort = dataclasses.replace(QUICKLY, seeds=(7,))
    run_rows(*make_rows(make_source(tmp_path), PEER), effort)
    run_rows(*make_rows(make_source(tmp_path, "training.batch_size=32"), PEER), effort)
    assert len(trainer.calls) == 2
    source = make_source(tmp_path)
    with Workspace(source.load()).writing("dataset", {}) as folder:
        (folder / "examples").write_text("other rows")
    run_rows(*make_rows(source, PEER), effort)
    assert len(trainer.calls) == 3


def test_a_ranker_that_fails_leaves_the_others(tmp_path: Path, trainer: Trainer) -> None:
    broken = dataclasses.replace(PEER, name="broken")
    outcomes = run_rows(*make_rows(make_source(tmp_path), broken, RULE), QUICKLY)
    assert outcomes[0].measured is None and outcomes[0].fault == "A peer must learn. Received: nothing."
    assert outcomes[1].measured is not None


def test_what_a_search_found_is_trained_with_every_seed(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"peer": {"learning_rate": 0.1}, OWN: {"predictor.dropout_rate": 0.5}}
    searched: list[tuple[str, str, int]] = []

    def search(runner: TrialRunner, tuner: str, num_trials: int) -> tuple[TuningResult, Path]:
        searched.append((runner.ranker, tuner, num_trials))
        trials = [TrialRow("default", {}, 0.5, 1.0), TrialRow("given 1", {"l2": 0.0}, 0.2, 1.0)]
        trials += [
            TrialRow("1", best[runner.ranker], 0.4, 2.0),
            TrialRow("2", {"l2": 1.0}, 0.3, 2.0),
        ]  # of a longer search
        objective = Objective("LogLoss", "min")
        return TuningResult(runner.ranker, "tiny", "a protocol.", tuner, runner.seed, objective, trials), tmp_path

    seen: list[float] = []
    score = trainer.__call__
    monkeypatch.setattr(run_rankers, "run_search", search)
    monkeypatch.setattr(
        run_rankers,
        "train_and_score",
        lambda workspace, *rest: (seen.append(workspace.config.predictor.dropout_rate), score(workspace, *rest))[1],
    )
    group, rows = make_rows(make_source(tmp_path), RULE, PEER, dataclasses.replace(OURS, name=OWN))
    outcomes = run_rows(group, rows, dataclasses.replace(QUICKLY, num_trials=1, is_quick=False))
    assert searched == [("peer", "random", 1), (OWN, "random", 1)]
    assert trainer.calls[1:] == [("peer", seed, best["peer"]) for seed in (7, 8)] + [(OWN, seed, {}) for seed in (7, 8)]
    assert seen[-2:] == [0.5, 0.5] and 0.5 not in seen[:-2]
    assert outcomes[0].facts["tuning"] == {"trials": 0, "seconds": 0.0}
    found = {"trials": 1, "tuner": "random", "seconds": 3.0, "validation": {"LogLoss": 0.4}, "settings": best["peer"]}
    assert outcomes[1].facts["tuning"] == found


def test_scores_of_other_candidates_are_refused(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_rankers, "read_evaluation_set", lambda _: make_evaluation(digest="another"))
    (outcome,) = run_rows(*make_rows(make_source(tmp_path), RULE), QUICKLY)
    assert "must rank the same candidates. Received: another" in outcome.fault


def test_configurations_with_the_same_candidates_share_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [make_source(tmp_path, f"name={name}") for name in ("one", "two", "three", "four")]
    digests = {"one": "same", "two": "other", "three": "same", "four": "same"}
    monkeypatch.setattr(
        run_list,
        "read_evaluation_set",
        lambda workspace, slicing: dataclasses.replace(
            make_evaluation(digest=digests[workspace.config.name]),
            slicing=slicing,
            learnt_from=(100, "later" if workspace.config.name == "four" else "validation"),
        ),
    )
    made: list[ConfigSource] = []
    groups = find_groups(sources, made.append, wants_ranking=False, slicing=BY_ITEM_ROWS)
    assert made == sources
    assert all(group.evaluation.slicing is BY_ITEM_ROWS for group in groups)
    assert [(group.name, group.sources) for group in groups] == [
        ("one", (sources[0], sources[2])),
        ("two", (sources[1],)),
        ("four", (sources[3],)),  # another train window: its own peers
    ]
    monkeypatch.setattr(run_list, "find_ranker", {"peer": PEER, "ours": OURS}.get)
    assert [row.label for row in plan_rows(groups[0], ["peer", "ours"])] == ["peer", "ours: one", "ours: three"]
    assert [row.label for row in plan_rows(groups[1], ["peer", "ours"])] == ["peer", "ours"]


def test_a_peer_may_have_settings_after_its_name(tmp_path: Path, trainer: Trainer) -> None:
    group = Group("tiny", make_evaluation(), (make_source(tmp_path),))
    text = "user rate + item rate, up to t; din; din hidden_dims=[8,4] learning_rate=0.01"
    rows = plan_rows(group, [part.strip() for part in text.split(";")])
    chosen = {"hidden_dims": [8, 4], "learning_rate": 0.01}
    assert [row.label for row in rows] == [part.strip() for part in text.split(";")]
    assert [row.settings for row in rows] == [{}, {}, chosen]
    effort = dataclasses.replace(QUICKLY, seeds=(7,), num_trials=5)  # settings that are given are not searched
    (outcome,) = run_rows(group, rows[2:], effort)
    assert trainer.calls == [("din", 7, chosen)]
    for number, settings in ((3, {"learning_rate": 0.01}), (4, chosen)):  # what found them is told, if a search did
        trials = [TrialRow(str(place), settings, 0.5, 2.0) for place in range(number + 1)]
        folder = tmp_path / "tiny" / "tuning" / "din" / f"random-{number}"
        folder.mkdir(parents=True)
        objective = Objective("LogLoss", "min")
        protocol = describe_protocol(group.sources[0].load())
        TuningResult("din", "tiny", protocol, "random", 7, objective, trials).write(folder)
    elsewhere = tmp_path / "tiny" / "tuning" / "din" / "random-5"  # on other candidates
    elsewhere.mkdir()
    TuningResult("din", "tiny", "another.", "random", 7, objective, [*trials, *trials]).write(elsewhere)
    by_hand = tmp_path / "tiny" / "tuning" / "din" / "random-6"
    by_hand.mkdir()
    given = [*trials[:1], TrialRow("given 1", chosen, 0.1, 2.0), *trials[1:], *trials[1:]]
    TuningResult("din", "tiny", protocol, "random", 7, objective, given).write(by_hand)
    (searched,) = run_rows(group, rows[2:], effort)
    assert searched.facts["tuning"] == {"trials": 8, "tuner": "random", "seconds": 18.0}
    assert outcome.facts["settings"] == chosen and outcome.facts["tuning"]["trials"] == 0
    for wrong, message in (
        ("tf_lift predictor.dropout_rate=0.5", "for peers .* Received: 'tf_lift predictor.dropout_rate=0.5'"),
        ("lift training.nonsense=3", "for peers .* Received: 'lift training.nonsense=3'"),
        ("din hidden_dims=[8, 4]", "without spaces, each key once. Received: 'din hidden_dims=\\[8, 4\\]'"),
        ("din l2=0.1 l2=0.2", "without spaces, each key once. Received: 'din l2=0.1 l2=0.2'"),
        ("l2=0.1 din", "Unknown ranker"),
        ("din learnin_rate=0.1", "Received: 'learnin_rate'. Did you mean 'learning_rate'"),
        ("din learning_rate=fast", "must be of type float"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_rows(group, [wrong])


def test_rankers_that_cannot_rank_the_labels_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ('behaviour={kind="positive_only"}', 'negatives={protocol="honest",per_target=12}')
    group = Group("tiny", make_evaluation(12), (make_source(tmp_path, *honest),))
    monkeypatch.setattr(run_list, "find_ranker", {"peer": PEER, "rule": RULE}.get)
    assert [row.label for row in plan_rows(group, ["peer", "rule"])] == ["rule"]


@pytest.mark.parametrize(("length", "wants", "program"), [(1, True, "ctr"), (12, False, "top_n")])
def test_slates_must_be_of_the_comparison_s_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, wants: bool, program: str
) -> None:
    monkeypatch.setattr(run_list, "read_evaluation_set", lambda *_: make_evaluation(length))
    with pytest.raises(ValueError, match=f"Received: configuration 'tiny'. Use `python -m benchmarks.{program}`"):
        find_groups([make_source(tmp_path)], lambda _: None, wants)


def test_hash_tells_candidates_apart() -> None:
    candidates = Candidates(
        np.arange(6, dtype=np.int32).reshape(3, 2),
        np.array([1, 0, 0], np.float32),
        np.zeros(3, np.int64),
        *[np.zeros(3)] * 3,
    )
    same = dataclasses.replace(candidates, fields=candidates.fields.copy(), times=np.ones(3))
    assert hash_candidates(candidates) == hash_candidates(same)
    for change in (
        {"labels": np.array([0, 1, 0], np.float32)},
        {"fields": candidates.fields[::-1]},
        {"slates": np.arange(3)},
    ):
        assert hash_candidates(dataclasses.replace(candidates, **change)) != hash_candidates(candidates)


def test_evaluation_set_is_the_test_split(tiny: Any) -> None:
    dataset = tiny.dataset(*tiny.honest)
    evaluation = read_evaluation_set(Workspace(dataset.config))
    num_slates = len(evaluation.users)
    assert evaluation.labels.sum() == num_slates and is_ranking(evaluation.slates)
    assert evaluation.slates.max() + 1 == num_slates and np.bincount(evaluation.slates).max() == 13
    assert evaluation.users.min() == 0 and len(np.unique(evaluation.users)) == evaluation.num_users
    gaps = [chosen for heading, chosen in evaluation.columns.items() if heading != POOLED]
    assert evaluation.columns[POOLED].all() and np.array_equal(np.sum(gaps, axis=0), np.ones(num_slates))
    own = dataset.log.time >= dataset.info.boundaries.test_from
    assert evaluation.num_users <= len(np.unique(dataset.log.user_indices()[own]))
    assert evaluation.protocol.startswith("Split by global time") and len(evaluation.candidates_hash) == 64
    assert set(np.unique(evaluation.validation.labels)) == {0.0, 1.0}
