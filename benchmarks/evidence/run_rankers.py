"""Trains and scores the rows of a table, or reads what an earlier call stored."""

import dataclasses
import gc
import json
import shutil
import tempfile
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
from benchmarks.evidence.run_store import RunResult, RunStore, hash_code
from tf_lift import metrics
from tf_lift.baselines.no_learning import apply_platt, fit_platt
from tf_lift.baselines.objective import choose_objective, measure_objective
from tf_lift.baselines.registry import RankerEntry
from tf_lift.baselines.train_peer import train_and_score
from tf_lift.evaluate import describe_protocol
from tf_lift.slate_grid import is_ranking, slate_grid
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.search import run_search
from tf_lift.tuning.trial_runner import OWN, TrialRunner
from tf_lift.tuning.tuning_result import TuningResult
from tf_lift.workspace import Workspace, write_json

_NO_SEARCH: Mapping[str, Any] = {"trials": 0, "seconds": 0.0}
_ENCODER_STAGES = ("pretrain", "encode")


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
    hash_code()  # of what is loaded, not of what is edited while it runs
    evidence_dir = Workspace(group.sources[0].load()).root / "evidence"
    evidence_dir.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="encoders-", dir=evidence_dir) as encoders_dir,
        tqdm(total=len(rows), unit="ranker", desc=group.name) as bar,
    ):
        for row in rows:
            bar.set_postfix_str(row.label)
            try:
                outcomes.append(_run_row(group, row, effort, Path(encoders_dir)))
            except (ValueError, ImportError) as error:  # ImportError: the package of an optional peer
                outcomes.append(RowOutcome(row, None, {}, str(error)))
            bar.update()
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


def _run_row(group: Group, row: Row, effort: Effort, encoders_dir: Path) -> RowOutcome:
    source, settings, tuning = _choose_settings(row, effort)
    workspace = Workspace(source.load())
    results = []
    for seed in effort.seeds[:1] if row.entry.kind == "rule" else effort.seeds:
        results.append(_run_or_read(group.evaluation, workspace, row.entry, settings, seed, encoders_dir))
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
        "microseconds": _microseconds(results, len(group.evaluation.labels)),
        "num_parameters": results[0].num_parameters,
        "over_ties": expect_over_ties(group.evaluation, results[0].scores),
        "validation": {choose_objective(group.evaluation.validation).name: _mean_validation(results)},
        "tuning": tuning,
        "is_of_earlier_code": any(result.code != hash_code() for result in results),
    }
    return RowOutcome(row, MeasuredRanker(row.label, row.entry.kind, runs), facts)


def _mean_validation(results: Sequence[RunResult]) -> float | None:
    """The mean over seeds; None where a result is of a version that did not keep it."""
    values = [result.validation for result in results if result.validation is not None]
    return float(np.mean(values)) if len(values) == len(results) else None


def _microseconds(results: Sequence[RunResult], num_candidates: int) -> float | None:
    """To read and score one test candidate; None of a rule, which counts the log and all splits at once."""
    seconds = [result.seconds["score test"] for result in results if "score test" in result.seconds]
    return 1e6 * float(np.mean(seconds)) / num_candidates if seconds else None


def _choose_settings(row: Row, effort: Effort) -> tuple[ConfigSource, dict[str, Any], Mapping[str, Any]]:
    """The configuration and settings of a row's runs, and what was done to find them."""
    settings = (_quick_settings(row.entry) if effort.is_quick else {}) | dict(row.settings)
    if row.settings:
        return row.source, settings, _find_search(row, effort)
    if not effort.num_trials or row.entry.kind == "rule":
        return row.source, settings, _NO_SEARCH
    runner = TrialRunner(row.source, row.entry.name, effort.seeds[0], make_data_set)
    result, _ = run_search(runner, effort.tuner, effort.num_trials)
    found = result.first(effort.num_trials)  # an earlier, longer search is no more for this ranker than for the others
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


def _find_search(row: Row, effort: Effort) -> Mapping[str, Any]:
    """What the search did that found a row's settings: the one of most trials, where there was any; none did if they were given."""
    searches_dir = TrialRunner(row.source, row.entry.name, effort.seeds[0], make_data_set).folder
    found = [TuningResult.read(path.parent) for path in searches_dir.glob("*/tuning.json")]
    given = json.loads(json.dumps(dict(row.settings)))
    config = row.source.load()
    of_row = (config.name, describe_protocol(config))
    drawn = [search.first(search.num_trials) for search in found if (search.config_name, search.protocol) == of_row]
    own = [search for search in drawn if search.best.settings == given]
    if not own:
        return _NO_SEARCH
    search = max(own, key=lambda search: search.num_trials)
    return {"trials": search.num_trials, "tuner": search.tuner, "seconds": search.seconds}


def _quick_settings(entry: RankerEntry) -> dict[str, Any]:
    """One epoch of each of a ranker's trainings."""
    if entry.kind == "rule":
        return {}
    if entry.settings_class is None:
        return {"pretraining.num_epochs": 1, "training.num_epochs": 1}
    return {field.name: 1 for field in dataclasses.fields(entry.settings_class) if field.name.endswith("_epochs")}


def _run_or_read(
    evaluation: EvaluationSet,
    workspace: Workspace,
    entry: RankerEntry,
    settings: Mapping[str, Any],
    seed: int,
    encoders_dir: Path,
) -> RunResult:
    """The result of one run; `encoders_dir` is where runs of ours leave their encoders for each other.

    Raises:
        ValueError: it cannot be run, or scored other candidates than the table's.
    """
    manifest = workspace.check_fresh("dataset")
    identity = {
        "ranker": entry.name,
        "seed": seed,
        "settings": dict(settings),
        "config": entry.hash_config(workspace.config),
        "dataset": [manifest["fingerprint"], manifest["content"]],
    }
    if entry.fixed:
        identity["fixed"] = dict(entry.fixed)
    store = RunStore(workspace.root / "evidence")
    result = store.read(identity)
    if result is None:
        own = read_evaluation_set(workspace)
        training_dir = store.run_dir(identity) / "training"
        shared = _share_encoder(workspace, seed, encoders_dir) if entry.kind == OURS else workspace
        scores = train_and_score(shared, entry.name, settings, seed, training_dir)
        probabilities = scores.test
        if not scores.is_probability:
            probabilities = apply_platt(scores.test, fit_platt(scores.validation, own.validation.labels))
        seconds = (
            scores.seconds if shared is workspace else _leave_encoder(training_dir, shared.run_dir, scores.seconds)
        )
        result = RunResult(
            scores.test,
            probabilities,
            seconds,
            scores.num_parameters,
            own.candidates_hash,
            hash_code(),
            measure_objective(own.validation, scores),
        )
        store.write(identity, result)
        shutil.rmtree(training_dir)  # checkpoints and states, much larger than the answers
    if result.candidates_hash != evaluation.candidates_hash:
        raise ValueError(
            f"All rankers of a table must rank the same candidates. Received: {result.candidates_hash[:12]} of {entry.name!r}, and "
            f"{evaluation.candidates_hash[:12]}. Do not tune what changes the targets or their negatives."
        )
    return result


def _share_encoder(workspace: Workspace, seed: int, encoders_dir: Path) -> Workspace:
    """The folders whose encoder a run of ours takes over: the configuration's own, or what an earlier run of the comparison left."""
    seeded = dataclasses.replace(workspace.config, seed=seed)
    if Workspace(seeded).is_fresh("encode"):
        return workspace
    folder = encoders_dir / Workspace(seeded).fingerprint("pretrain")
    return Workspace(dataclasses.replace(workspace.config, run=str(folder.absolute())))


def _leave_encoder(training_dir: Path, shared_dir: Path, seconds: Mapping[str, float]) -> dict[str, float]:
    """Moves a run's encoder and states to where the next run with the same finds them.

    Returns:
        The run's seconds, those of the encoder's training among them, whichever run did it.
    """
    times = shared_dir / "seconds.json"
    if not times.is_file():
        shared_dir.mkdir(parents=True, exist_ok=True)
        for stage in _ENCODER_STAGES:
            if (training_dir / stage).exists():
                shutil.move(training_dir / stage, shared_dir / stage)
        write_json(times, {stage: seconds[stage] for stage in _ENCODER_STAGES if stage in seconds})
    return {**seconds, **json.loads(times.read_text(encoding="utf-8"))}
