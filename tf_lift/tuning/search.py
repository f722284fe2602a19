"""A whole search: the defaults first, then settings that were given, then KerasTuner's trials."""

import dataclasses
import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from keras_tuner.engine import trial as trials
from tqdm import tqdm

from tf_lift.config.hashing import hash_json
from tf_lift.evaluate import describe_protocol
from tf_lift.tuning.ranker_tuner import RankerTuner, Search
from tf_lift.tuning.search_space import SearchSpace
from tf_lift.tuning.trial_runner import OWN, TrialRunner
from tf_lift.tuning.tuning_result import DEFAULT, GIVEN, TrialRow, TuningResult
from tf_lift.workspace import write_json


def run_search(
    runner: TrialRunner, tuner: str, num_trials: int, given: Sequence[Mapping[str, Any]] = ()
) -> tuple[TuningResult, Path]:
    """Searches a ranker's settings; what was done before with the same configuration, space and tuner is read, not done again.

    Args:
        runner: what a trial is.
        tuner: one of TUNERS.
        num_trials: how many there shall be beside the defaults' own and those given; those of a longer search before stay.
        given: settings to try too, each a trial of its own, which stays as well; they need not be of the space.

    Returns:
        What was found, and the folder with tuning.json, tuning.png and best.toml.

    Raises:
        ValueError: a wrong argument, or no trial succeeded.
    """
    space, objective = runner.space, runner.objective
    for settings in given:
        runner.check(settings)
    max_epochs = runner.max_epochs if tuner == "hyperband" else 0
    search = Search(tuner, num_trials, max_epochs, runner.seed)
    folder = runner.folder / f"{tuner}-{_identity(runner, search)}"
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(desc=f"tune {runner.ranker}", unit="trial") as bar:

        def note(trial: trials.Trial) -> None:
            bar.update()
            bar.set_postfix_str(f"last {trial.score:.4f}" if trial.score is not None else "last failed")

        ranker_tuner = RankerTuner(search, space, objective, runner.evaluate, folder / "keras_tuner", note)
        oracle = ranker_tuner.oracle
        bar.reset(total=1 + len(given) + max(num_trials, len(oracle.end_order)))
        bar.update(len(oracle.end_order))
        rows = [_run_once(runner, DEFAULT, {}, folder / "default.json")]
        bar.update()
        rows += _run_given(runner, given, folder, bar)
        if len(oracle.end_order) < num_trials:  # else KerasTuner would end a trial that a longer search had begun
            ranker_tuner.search()
    rows += [_as_row(place, oracle.trials[number], space) for place, number in enumerate(oracle.end_order, start=1)]
    config = runner.source.load()
    result = TuningResult(runner.ranker, config.name, describe_protocol(config), tuner, runner.seed, objective, rows)
    result.write(folder)
    _write_best(runner, result, folder / "best.toml")
    return result, folder


def _identity(runner: TrialRunner, search: Search) -> str:
    """A hash of all that a trial's value depends on, and of how trials are chosen; not of their number, which may grow."""
    config = dataclasses.asdict(runner.source.load())
    for key in ("workspace", "run", "export"):
        config.pop(key)
    parts: list[Any] = [
        runner.ranker,
        runner.workspace.check_fresh("dataset"),
        config,
        dataclasses.asdict(runner.space),
    ]
    parts += [search.tuner, search.seed, search.max_epochs]
    parts += [dict(runner.entry.fixed)] if runner.entry.fixed else []
    return hash_json(parts)


def _run_once(runner: TrialRunner, name: str, settings: Mapping[str, Any], path: Path) -> TrialRow:
    """A trial of settings that KerasTuner knows nothing of; kept in a file."""
    if path.is_file():
        return _read_row(path)
    began = time.monotonic()
    value = runner.evaluate(settings)
    row = TrialRow(name, dict(settings), value, time.monotonic() - began)
    write_json(path, dataclasses.asdict(row))
    return row


def _read_row(path: Path) -> TrialRow:
    return TrialRow(**json.loads(path.read_text(encoding="utf-8")))


def _run_given(runner: TrialRunner, given: Sequence[Mapping[str, Any]], folder: Path, bar: tqdm) -> list[TrialRow]:
    """Trials of settings that were given, now or before, in the order in which they were; one that fails is told, and not kept."""
    rows = {path: _read_row(path) for path in folder.glob("given-*.json")}
    place = max((int(row.name.removeprefix(GIVEN)) for row in rows.values()), default=0)
    for settings in given:
        path = folder / f"given-{hash_json(settings)}.json"
        if path not in rows:
            place += 1
            name = f"{GIVEN} {place}"
            try:
                rows[path] = _run_once(runner, name, settings, path)
            except (ValueError, TypeError, ArithmeticError, tf.errors.OpError) as error:
                rows[path] = TrialRow(name, dict(settings), None, 0.0, f"{type(error).__name__}: {error}")
        bar.update()
    return sorted(rows.values(), key=lambda row: int(row.name.removeprefix(GIVEN)))


def _as_row(place: int, trial: trials.Trial, space: SearchSpace) -> TrialRow:
    settings = space.settings(trial.hyperparameters.values)
    if trial.score is None:
        return TrialRow(str(place), settings, None, 0.0, _find_fault(trial.message or "no value"))
    return TrialRow(str(place), settings, trial.score, trial.metrics.get_best_value("seconds"))


def _find_fault(traceback: str) -> str:
    """The error of a traceback, in one line."""
    lines = traceback.strip().splitlines()
    errors = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    return (errors or lines)[-1]


def _write_best(runner: TrialRunner, result: TuningResult, path: Path) -> None:
    """The best settings: a configuration for this project's predictor, a ranker's settings for another."""
    best = result.best
    heading = (
        f"The best of the defaults and {result.describe_trials()}: {result.objective.name} {best.value:.6f} on "
        f"validation (trial {best.name}, seed {result.seed}).\n"
    )
    if runner.ranker == OWN:
        command = "python -m tf_lift.train --config THIS_FILE"
        runner.source.with_settings(best.settings).write_toml(path, heading + command)
        return
    flags = "".join(
        f" --set-ranker {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in best.settings.items()
    )
    command = f"python -m tf_lift.baselines.train_peer --config {runner.source.path} --ranker {shlex.quote(runner.ranker)}{flags}"
    lines = [f"# {line}" for line in (*heading.splitlines(), command)]
    lines += ["", f"ranker = {json.dumps(runner.ranker)}", "", "[settings]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in best.settings.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
