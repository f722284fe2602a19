"""Trains and scores the rows of a table, or reads what an earlier call stored."""

import dataclasses
import gc
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from beam import preprocess
from benchmarks.evidence.compare import MeasuredRanker
from benchmarks.evidence.evaluation_set import EvaluationSet, read_evaluation_set
from benchmarks.evidence.measures import measure
from benchmarks.evidence.run_list import OURS, Group, Row
from benchmarks.evidence.run_store import RunResult, RunStore
from tf_lift import metrics
from tf_lift.baselines.no_learning import fit_platt
from tf_lift.baselines.registry import RankerEntry
from tf_lift.baselines.train_peer import train_and_score
from tf_lift.slate_grid import is_ranking, slate_grid
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.search import run_search
from tf_lift.tuning.trial_runner import OWN, TrialRunner
from tf_lift.workspace import Workspace

_ENCODER_STAGES = ("pretrain", "encode")
_NOT_READ = ("name", "workspace", "run", "export", "seed")  # sections that no result depends on


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is done for each ranker.

    Attributes:
        seeds: of training; a rule, which draws nothing, gets the first alone.
        num_trials: of the search for settings on validation; 0: the defaults.
        tuner: how settings are searched.
        is_quick: True: one epoch of each training.
    """

    seeds: tuple[int, ...]
    num_trials: int
    tuner: str
    is_quick: bool


@dataclasses.dataclass(frozen=True)
class RowOutcome:
    """What became of a row.

    Attributes:
        row: the row.
        measured: its numbers; None where it failed.
        facts: JSON values that are printed beside them.
        fault: the message of a row that failed.
    """

    row: Row
    measured: MeasuredRanker | None
    facts: Mapping[str, Any]
    fault: str = ""


def run_rows(group: Group, rows: Sequence[Row], effort: Effort) -> list[RowOutcome]:
    """Runs every row; one that cannot be run leaves the others as they are.

    Args:
        group: what the rows are judged on.
        rows: of one table.
        effort: how much is done for each.
    """
    outcomes = []
    with tqdm(total=len(rows), unit="ranker", desc=group.name) as bar:
        for row in rows:
            bar.set_postfix_str(row.label)
            try:
                outcomes.append(_run_row(group, row, effort))
            except (ValueError, ImportError) as error:  # ImportError: the package of an optional peer
                outcomes.append(RowOutcome(row, None, {}, str(error)))
            bar.update()
    for source in group.sources:
        shutil.rmtree(_encoders_dir(Workspace(source.load())), ignore_errors=True)
    return outcomes


def expect_over_ties(evaluation: EvaluationSet, scores: np.ndarray) -> dict[str, float]:
    """Ranking metrics with tied candidates in a random order, their exact expectation; empty where slates are not ranked.

    Beside the average rank of ties, which makes a ranker of few different scores look like nothing.
    """
    if not is_ranking(evaluation.slates):
        return {}
    labels, mask = slate_grid(evaluation.slates, evaluation.labels)
    return metrics.ranking_metrics_expected_over_ties(labels, slate_grid(evaluation.slates, scores)[0], mask)


def make_data_set(source: ConfigSource) -> None:
    """Makes the data set of a configuration, unless it is there."""
    config = source.load()
    if not Workspace(config).is_fresh("dataset"):
        preprocess.run(config)


def _run_row(group: Group, row: Row, effort: Effort) -> RowOutcome:
    source, settings, tuning = _choose_settings(row, effort)
    workspace = Workspace(source.load())
    results = []
    for seed in effort.seeds[:1] if row.entry.kind == "rule" else effort.seeds:
        results.append(_run_or_read(group.evaluation, workspace, row.entry, settings, seed))
        tf.keras.backend.clear_session()
        gc.collect()
    runs = [measure(group.evaluation, result.scores, result.probabilities) for result in results]
    facts = {
        "ranker": row.entry.name,
        "kind": row.entry.kind,
        "source": row.entry.source,
        "config": source.load().name,
        "settings": settings,
        "seeds": list(effort.seeds[: len(results)]),
        "seconds": float(np.mean([sum(result.seconds.values()) for result in results])),
        "microseconds": 1e6 * float(np.mean([_scoring(result) for result in results])) / len(group.evaluation.labels),
        "num_parameters": results[0].num_parameters,
        "over_ties": expect_over_ties(group.evaluation, results[0].scores),
        "tuning": tuning,
    }
    return RowOutcome(row, MeasuredRanker(row.label, row.entry.kind, runs), facts)


def _scoring(result: RunResult) -> float:
    """Seconds that the test split took, its reading among them; NaN of a rule, which counts the log and all splits at once."""
    return result.seconds.get("score test", float("nan"))


def _choose_settings(row: Row, effort: Effort) -> tuple[ConfigSource, dict[str, Any], dict[str, Any]]:
    """The configuration and settings of a row's runs, and what was done to find them."""
    settings = _quick_settings(row.entry) if effort.is_quick else {}
    if not effort.num_trials or row.entry.kind == "rule":
        return row.source, settings, {"trials": 0, "seconds": 0.0}
    runner = TrialRunner(row.source, row.entry.name, effort.seeds[0], make_data_set)
    found, _ = run_search(runner, effort.tuner, effort.num_trials)
    tuning = {
        "trials": found.num_trials,
        "tuner": found.tuner,
        "seconds": found.seconds,
        "validation": {found.objective.name: found.best.value},
        "settings": dict(found.best.settings),
    }
    if row.entry.name == OWN:
        return row.source.with_settings(found.best.settings), settings, tuning
    return row.source, settings | dict(found.best.settings), tuning


def _quick_settings(entry: RankerEntry) -> dict[str, Any]:
    """One epoch of each of a ranker's trainings."""
    if entry.kind == "rule":
        return {}
    if entry.settings_class is None:
        return {"pretraining.num_epochs": 1, "training.num_epochs": 1}
    return {field.name: 1 for field in dataclasses.fields(entry.settings_class) if field.name.endswith("num_epochs")}


def _run_or_read(
    evaluation: EvaluationSet, workspace: Workspace, entry: RankerEntry, settings: Mapping[str, Any], seed: int
) -> RunResult:
    """The result of one run.

    Raises:
        ValueError: it cannot be run, or scored other candidates than the table's.
    """
    config = workspace.config
    sections = sorted(field.name for field in dataclasses.fields(config) if field.name not in _NOT_READ)
    manifest = workspace.check_fresh("dataset")
    identity = {
        "ranker": entry.name,
        "seed": seed,
        "settings": dict(settings),
        "config": config.section_hash(*sections),
        "dataset": [manifest["fingerprint"], manifest["content"]],
    }
    store = RunStore(workspace.root / "evidence")
    result = store.read(identity)
    if result is None:
        own = read_evaluation_set(workspace)
        training_dir = store.run_dir(identity) / "training"
        shared = _share_encoder(workspace, seed) if entry.kind == OURS else workspace
        scores = train_and_score(shared, entry.name, settings, seed, training_dir)
        probabilities = scores.test
        if not scores.is_probability:
            slope, intercept = fit_platt(scores.validation, own.validation_labels)
            probabilities = 1.0 / (1.0 + np.exp(-(slope * scores.test + intercept)))
        result = RunResult(scores.test, probabilities, scores.seconds, scores.num_parameters, own.candidates_hash)
        store.write(identity, result)
        if shared is not workspace:
            _leave_encoder(training_dir, shared.run_dir)
        shutil.rmtree(training_dir)  # checkpoints and states, much larger than the answers
    if result.candidates_hash != evaluation.candidates_hash:
        raise ValueError(
            f"All rankers of a table must rank the same candidates. Received: {result.candidates_hash[:12]} of {entry.name!r}, and "
            f"{evaluation.candidates_hash[:12]}. Do not tune what changes the targets or their negatives."
        )
    return result


def _share_encoder(workspace: Workspace, seed: int) -> Workspace:
    """The folders whose encoder a run of ours takes over: the configuration's own, or what an earlier run of the comparison left."""
    seeded = dataclasses.replace(workspace.config, seed=seed)
    if Workspace(seeded).is_fresh("encode"):
        return workspace
    folder = _encoders_dir(workspace) / Workspace(seeded).fingerprint("pretrain")
    return Workspace(dataclasses.replace(workspace.config, run=str(folder.absolute())))


def _leave_encoder(training_dir: Path, shared_dir: Path) -> None:
    """Moves a run's encoder and states to where the next run with the same finds them."""
    for stage in _ENCODER_STAGES:
        if (training_dir / stage).exists() and not (shared_dir / stage).exists():
            shared_dir.mkdir(parents=True, exist_ok=True)
            shutil.move(training_dir / stage, shared_dir / stage)


def _encoders_dir(workspace: Workspace) -> Path:
    return workspace.root / "evidence" / "encoders"
