"""A search: its trials, its end by a kill, and what it writes."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from beam import preprocess
from tf_lift import tune
from tf_lift.baselines.objective import Objective
from tf_lift.config import load_config, parse_assignments
from tf_lift.tuning import ranker_tuner, trial_runner
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.ranker_tuner import Search
from tf_lift.tuning.search import run_search
from tf_lift.tuning.search_space import SearchSpace
from tf_lift.tuning.trial_runner import OWN, TrialRunner
from tf_lift.tuning.tuning_result import TrialRow, TuningResult
from tf_lift.workspace import Workspace

TINY = Path(__file__).parents[3] / "configs" / "tiny.toml"
TINY_TOP_N = TINY.with_name("tiny_top_n.toml")
CHOICES = {"width": (1, 2, 3, 4, 5, 6), "rate": (0.1, 0.2, 0.3)}


class FakeRunner(TrialRunner):
    """A runner whose objective is a known function, smallest at width 5 and rate 0.2."""

    def __init__(self, folder: Path, ranker: str = "popularity", kill_at: int | None = None, **overrides: Any) -> None:
        texts = tuple(f"{key}={value}" for key, value in overrides.items())
        super().__init__(ConfigSource(TINY, (f"workspace={folder}", *texts)), ranker, 7, _make_empty)
        self.__dict__ |= {"calls": [], "kill_at": kill_at}
        self.__dict__ |= {
            "space": SearchSpace(CHOICES, {"width": 1, "rate": 0.1}),
            "objective": Objective("LogLoss", "min"),
        }

    max_epochs = 9

    def check(self, settings: Mapping[str, Any]) -> None:
        if not settings.keys() <= CHOICES.keys():
            raise ValueError(f"Unknown setting. Received: {settings}.")

    def evaluate(self, settings: Mapping[str, Any], num_epochs: int | None = None) -> float:
        if len(self.calls) == self.kill_at:
            raise KeyboardInterrupt
        self.calls.append((dict(settings), num_epochs))
        if settings.get("width") == 6:
            raise ValueError("A width must be odd. Received: 6.")
        return abs(settings.get("width", 1) - 5) + abs(settings.get("rate", 0.1) - 0.2) + 1.0 / (num_epochs or 1)


def _make_empty(source: ConfigSource) -> None:
    with Workspace(source.load()).writing("dataset", {}):
        pass


def test_random_search_finds_the_best_and_records_failures(tmp_path: Path) -> None:
    result, folder = run_search(FakeRunner(tmp_path), "random", 18)
    assert result.trials[0].name == "default" and result.trials[0].value == pytest.approx(5.1)
    assert result.best.settings == {"width": 5, "rate": 0.2} and result.best.value == pytest.approx(1.0)
    failed = [trial for trial in result.trials if trial.value is None]
    assert failed and all(trial.settings["width"] == 6 for trial in failed)
    assert failed[0].fault == "ValueError: A width must be odd. Received: 6."
    content = json.loads((folder / "tuning.json").read_text())
    assert (
        10 < content["num_trials"] == len(content["trials"]) - 1 <= 18
    )  # random search gives up when it meets what it tried
    assert content["best"]["settings"] == {"width": 5, "rate": 0.2}
    assert (folder / "tuning.png").read_bytes().startswith(b"\x89PNG")
    best = (folder / "best.toml").read_text()
    assert 'ranker = "popularity"' in best and "[settings]" in best and "width = 5" in best
    assert "--ranker popularity --set-ranker width=5 --set-ranker rate=0.2" in best


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, _ = run_search(FakeRunner(tmp_path / "whole"), "random", 8)
    killed = FakeRunner(tmp_path / "killed", kill_at=4)
    with pytest.raises(KeyboardInterrupt):
        run_search(killed, "random", 8)
    for num_trials in (2, 3):
        enough = FakeRunner(tmp_path / "killed")
        result, _ = run_search(enough, "random", num_trials)
        assert not enough.calls and result.num_trials == 3  # the fourth, begun, is left to a search of more
    resumed = FakeRunner(tmp_path / "killed")
    result, _ = run_search(resumed, "random", 8)
    assert len(killed.calls) == 4 and len(resumed.calls) == 5  # the default and three trials are not run again
    assert [(trial.settings, trial.value) for trial in result.trials] == [
        (trial.settings, trial.value) for trial in whole.trials
    ]
    longer = FakeRunner(tmp_path / "killed")
    result, _ = run_search(longer, "random", 10)
    assert len(longer.calls) == 2 and result.num_trials == 10


def test_given_settings_are_trials_of_their_own(tmp_path: Path) -> None:
    first = FakeRunner(tmp_path)
    result, folder = run_search(first, "random", 0, [{"width": 3}, {"width": 6}, {"width": 5, "rate": 0.2}])
    assert [(trial.name, trial.settings) for trial in result.trials] == [
        ("default", {}),
        ("given 1", {"width": 3}),
        ("given 2", {"width": 6}),
        ("given 3", {"width": 5, "rate": 0.2}),
    ]
    assert [trial.value for trial in result.trials] == [
        pytest.approx(5.1),
        pytest.approx(3.1),
        None,
        pytest.approx(1.0),
    ]
    assert result.trials[2].fault == "ValueError: A width must be odd. Received: 6."
    assert result.describe_trials() == "0 trials of random search and 3 given"
    assert "The best of the defaults and 0 trials of random search and 3 given" in (folder / "best.toml").read_text()
    content = json.loads((folder / "tuning.json").read_text())
    assert (content["num_trials"], content["num_given"], content["best"]["name"]) == (0, 3, "given 3")
    longer = FakeRunner(tmp_path)
    result, _ = run_search(longer, "random", 2, [{"rate": 0.2, "width": 5}, {"width": 4}])
    assert longer.calls[0] == ({"width": 4}, None) and len(longer.calls) == 3
    names = ["default", "given 1", "given 3", "given 4", "1", "2"]
    assert [trial.name for trial in result.trials] == names and result.trials[2].settings == {"width": 5, "rate": 0.2}
    searched, _ = run_search(FakeRunner(tmp_path), "random", 2)
    assert [trial.name for trial in searched.trials] == names and searched.best.name == "given 3"
    alone = searched.first(1)
    assert [trial.name for trial in alone.trials] == ["default", "1"] and alone.num_trials == 1
    untouched = FakeRunner(tmp_path)
    with pytest.raises(ValueError, match="Unknown setting"):
        run_search(untouched, "random", 9, [{"width": 2}, {"wdith": 2}])
    assert not untouched.calls


@pytest.mark.parametrize(
    ("ranker", "settings", "message"),
    [
        ("gbdt", {"num_leafs": 3}, "Received: 'num_leafs'. Did you mean 'num_leaves'"),
        (OWN, {"training.num_epoch": 3}, "Did you mean 'num_epochs'"),
        (OWN, {"seed": 8}, "keys of what is learnt, as section.key. Received: seed"),
        (OWN, {"export.state_type": "int8"}, "Received: export.state_type"),
        ("lift", {"training.num_epoch": 3}, "Received: 'training.num_epoch'"),
        ("lift, no pretraining", {"name": "other"}, "Received: name"),
        (
            "lift",
            {"retrieval.context_length": 3},
            "share the configuration's data set. Received: .* as --set, to all trials",
        ),
        ("gbdt", {"recency_days": ["7"]}, "must be from .* Received: '7'"),
    ],
)
def test_given_settings_are_checked_before_anything_is_trained(
    tmp_path: Path, ranker: str, settings: dict[str, Any], message: str
) -> None:
    runner = TrialRunner(ConfigSource(TINY, (f"workspace={tmp_path}",)), ranker, 7, _make_empty)
    with pytest.raises(ValueError, match=message):
        runner.check(settings)
    runner.check({"num_leaves": 3} if ranker == "gbdt" else {"training.num_epochs": 3})


def test_a_given_date_is_text_as_in_the_configuration(tmp_path: Path) -> None:
    flags = tune.parse_flags(["--config", str(TINY), "--try", "split.train_from=2017-03-15T00:00:00 training.l2=0.1"])
    (given,) = (parse_assignments(text.split()) for text in flags.given)
    assert given == {"split.train_from": "2017-03-15T00:00:00", "training.l2": 0.1}
    assert parse_assignments(["days=[2017-03-15,2]", "at=10:00:00"]) == {"days": ["2017-03-15", 2], "at": "10:00:00"}
    source = ConfigSource(TINY, (f"workspace={tmp_path}", "split.by=times", "split.test_from=2018-01-01"))
    assert source.with_settings(given).load().split.train_from == "2017-03-15T00:00:00"


def test_the_command_hands_its_trials_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Any] = []
    monkeypatch.setattr(
        tune, "run_search", lambda *arguments: found.extend(arguments[1:]) or (make_result(0.5), tmp_path)
    )
    flags = ["--config", str(TINY), "--ranker", "din", "--trials", "3", "--try", "l2=0.1 patience=3", "--try", "l2=0.2"]
    monkeypatch.setattr("sys.argv", ["tune", *flags])
    tune.main()
    assert found == ["random", 3, [{"l2": 0.1, "patience": 3}, {"l2": 0.2}]]


def test_an_empty_trial_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tune", "--config", str(TINY), "--try", " "])
    with pytest.raises(SystemExit, match="--try must name settings, .* Received: none"):
        tune.main()


def test_trials_must_rank_the_same_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(job: Any, _: str) -> Any:
        per_target = job.workspace.config.negatives.per_target
        return SimpleNamespace(
            fields=np.zeros((per_target, 2)), slates=np.zeros(per_target), labels=np.zeros(per_target)
        )

    monkeypatch.setattr(trial_runner.RankerJob, "candidates", read)
    monkeypatch.setattr(trial_runner, "score_with_overrides", lambda *_: None)
    monkeypatch.setattr(trial_runner, "measure_objective", lambda *_: 0.5)
    runner = TrialRunner(ConfigSource(TINY_TOP_N, (f"workspace={tmp_path}",)), OWN, 7, _make_empty)
    assert runner.evaluate({"retrieval.context_length": 3}) == 0.5
    with pytest.raises(ValueError, match="must rank the same candidates. Received: {'negatives.per_target': 5}"):
        runner.evaluate({"negatives.per_target": 5})


@pytest.mark.parametrize("overrides", [{"training.batch_size": 32}, {"split.test_from": 0.7}], ids=str)
def test_trials_of_another_configuration_are_not_used(tmp_path: Path, overrides: dict[str, Any]) -> None:
    run_search(FakeRunner(tmp_path), "random", 2)
    other = FakeRunner(tmp_path, **overrides)
    if "split.test_from" in overrides:
        _make_empty(other.source)
    run_search(other, "random", 2)
    assert len(other.calls) == 3


def test_hyperband_gives_more_epochs_to_the_better(tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path)
    result, _ = run_search(runner, "hyperband", 12)
    epochs = [num_epochs for _, num_epochs in runner.calls]
    assert epochs[0] is None and set(epochs[1:]) >= {1, 3} and result.num_trials == 12


def test_arguments_of_a_search_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="must be one of random, hyperband, bayesian. Received: 'grid'"):
        Search("grid", 3, 0, 7)
    with pytest.raises(ValueError, match="must be 0 or more. Received: -1"):
        Search("random", -1, 0, 7)
    monkeypatch.setattr(ranker_tuner.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="needs scikit-learn. Received: it is not installed"):
        Search("bayesian", 3, 0, 7)


def test_bayesian_search_finds_a_good_value(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="KerasTuner's Bayesian search needs scikit-learn")
    result, _ = run_search(FakeRunner(tmp_path), "bayesian", 12)
    assert result.best.value == pytest.approx(1.0, abs=1.2)


def make_result(*values: float | None) -> TuningResult:
    rows = [
        TrialRow(
            "default" if place == 0 else str(place), {"a": place}, value, 2.0, "" if value else "No. Received: it."
        )
        for place, value in enumerate(values)
    ]
    return TuningResult("din", "shop", "A protocol.", "random", 7, Objective("NDCG@10", "max"), rows)


def test_the_defaults_stay_unless_something_beats_them(tmp_path: Path) -> None:
    assert make_result(0.5, None, 0.5).best.name == "default"
    result = make_result(0.5, 0.4, 0.6, None)
    assert (result.best.name, result.num_trials, result.seconds) == ("2", 3, 8.0)
    with pytest.raises(
        ValueError, match="At least one trial must succeed. Received: 2 that failed, the first with: No. Received: it."
    ):
        _ = make_result(None, None).best
    printed = io.StringIO()
    result.print_table(Console(file=printed, width=120))
    lines = printed.getvalue().splitlines()
    numbers = [line.split("│")[2].strip() for line in lines if line.startswith("│")]
    assert numbers == ["0.6000", "0.5000", "0.4000"]
    assert "Trial 3 failed (a=3): No. Received: it." in printed.getvalue()


def test_a_ranker_without_settings_cannot_be_tuned(tmp_path: Path) -> None:
    runner = TrialRunner(ConfigSource(TINY, (f"workspace={tmp_path}",)), "popularity", 7, _make_empty)
    with pytest.raises(ValueError, match="must have settings to be tuned. Received: 'popularity'"):
        _ = runner.space
    with pytest.raises(ValueError, match="needs a ranker that is trained by epochs. Received: 'popularity'"):
        _ = runner.max_epochs
    assert TrialRunner(runner.source, OWN, 7, _make_empty).max_epochs == load_config(TINY).training.num_epochs


@pytest.mark.parametrize(
    ("mode", "length", "tables"), [("rolling", 1, "true"), ("rolling", 12, "false"), ("static", 12, "true")]
)
def test_what_is_searched_follows_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, length: int, tables: str
) -> None:
    slates = np.repeat(np.arange(3), length)
    monkeypatch.setattr(trial_runner.RankerJob, "candidates", lambda *_: SimpleNamespace(slates=slates))
    source = ConfigSource(TINY, (f"workspace={tmp_path}", f'split.mode="{mode}"', f"situation.tables={tables}"))
    space = TrialRunner(source, "gbdt", 7, _make_empty).space
    assert space.defaults.get("relations") == ("none" if tables == "true" else None)
    choices = space.choices
    assert ("recency_days" in choices) == (mode == "rolling")
    assert ("objective" in choices) == (length == 12)
    assert "num_leaves" in choices
    din = TrialRunner(source, "din", 7, _make_empty).space
    assert not din.choices.keys() & {"objective", "relations"} and ("loss" in din.choices) == (length == 12)


def test_what_a_ranker_sets_itself_is_its_default(tmp_path: Path) -> None:
    source = ConfigSource(
        TINY, (f"workspace={tmp_path}", "pretraining.mask_ratio=0.0", "training.learning_rate_decay=cosine")
    )
    defaults = TrialRunner(source, "lift", 7, _make_empty).space.defaults
    assert (defaults["pretraining.mask_ratio"], defaults["training.learning_rate_decay"]) == (0.6, "none")
    assert TrialRunner(source, OWN, 7, _make_empty).space.defaults["pretraining.mask_ratio"] == 0.0


@pytest.mark.slow
def test_own_search_trains_and_leaves_the_configuration_s_data_set_as_it_is(tiny: Any) -> None:
    workspace = Workspace(tiny.dataset().config)
    before = workspace.read_manifest("dataset")
    source = ConfigSource(tiny.toml, tiny.overrides())
    runner = TrialRunner(source, OWN, 7, lambda made: preprocess.run(made.load()) and None)
    runner.__dict__["space"] = SearchSpace({"retrieval.context_length": (4,)}, {"retrieval.context_length": 6})
    result, folder = run_search(runner, "random", 1)
    assert [trial.fault for trial in result.trials] == ["", ""] and result.trials[1].settings == {
        "retrieval.context_length": 4
    }
    assert 0.2 < result.best.value < 0.8
    assert workspace.read_manifest("dataset") == before
    best = load_config(folder / "best.toml")
    assert best.retrieval.context_length == result.best.settings.get("retrieval.context_length", 6)
    assert Workspace(best).is_fresh("dataset")


def test_own_trials_share_the_stages_that_their_settings_leave_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, Path]] = []

    def score(job: Any, overrides: Mapping[str, Any]) -> Any:
        seen.append((job.workspace.dataset_dir, job.folder))
        return None

    monkeypatch.setattr(trial_runner, "score_with_overrides", score)
    none = np.zeros(0)
    monkeypatch.setattr(
        trial_runner.RankerJob, "candidates", lambda *_: SimpleNamespace(fields=none, slates=none, labels=none)
    )
    monkeypatch.setattr(trial_runner, "measure_objective", lambda *_: 0.5)
    made: list[ConfigSource] = []

    def make(source: ConfigSource) -> None:
        made.append(source)
        _make_empty(source)

    runner = TrialRunner(ConfigSource(TINY, (f"workspace={tmp_path}",)), OWN, 7, make)
    for settings in (
        {},
        {"predictor.dropout_rate": 0.5},
        {"encoder.state_dim": 32},
        {"retrieval.context_length": 10},
        {"retrieval.context_length": 10, "training.l2": 0.0},
    ):
        assert runner.evaluate(settings) == 0.5
    assert len(made) == 2  # one data set for each context length
    data_sets, folders = zip(*seen, strict=True)
    assert data_sets[0] == data_sets[1] == data_sets[2] != data_sets[3] == data_sets[4]
    assert folders[0] == folders[1] and folders[3] == folders[4] and len(set(folders)) == 3
    assert dataclasses.replace(runner, seed=8).evaluate({}) == 0.5 and seen[-1][1] not in folders
