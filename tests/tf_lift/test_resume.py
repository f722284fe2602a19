"""`python -m tf_lift.train` killed in each of its stages: the same command again is all that is needed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam import preprocess
from tf_lift.workspace import Workspace

_REPOSITORY = Path(__file__).resolve().parents[2]
_LONGEST_WAIT = 180  # seconds


class Command:
    """One run of the command, with its log in a file."""

    def __init__(self, log: Path, toml: Path, *overrides: str) -> None:
        flags = [part for override in overrides for part in ("--set", override)]
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tf_lift.train", "--config", str(toml), *flags],
                stdout=file,
                stderr=file,
                cwd=_REPOSITORY,
                env=os.environ | {"PYTHONPATH": str(_REPOSITORY)},
            )

    def kill_when(self, is_time: Callable[[str], bool]) -> str:
        """Kills the process at the moment that a condition on the log holds; returns the log."""
        end = time.monotonic() + _LONGEST_WAIT
        while not is_time(self.log):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.002)
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL
        return self.log

    def finish(self) -> str:
        assert self._process.wait(_LONGEST_WAIT) == 0, self.log
        return self.log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_command_killed_in_each_stage_finishes_when_it_is_repeated(
    new_tiny: Callable[[], Any], tmp_path: Path
) -> None:
    tiny = new_tiny()
    overrides = ("pretraining.num_epochs=4", "pretraining.patience=9", "training.num_epochs=4", "training.patience=9")
    config = tiny.load(*overrides)
    preprocess.run(config)
    folder = Workspace(config).run_dir

    def start(name: str) -> Command:
        return Command(tmp_path / f"{name}.txt", tiny.toml, *overrides)

    def is_done(stage: str) -> bool:
        return (folder / stage / "manifest.json").exists()

    logs = [start("pretrain").kill_when(lambda _: (folder / "pretrain.progress" / "latest" / "checkpoint").exists())]
    assert not is_done("pretrain")
    logs.append(start("encode").kill_when(lambda _: (folder / "encode.partial").exists()))
    assert "pretrain: goes on after epoch" in logs[-1]
    assert is_done("pretrain") and not (folder / "pretrain.progress").exists() and not is_done("encode")
    logs.append(start("fit").kill_when(lambda _: (folder / "fit.progress" / "latest" / "checkpoint").exists()))
    assert "pretrain: " in logs[-1] and "pretrain epoch" not in logs[-1]
    assert is_done("encode") and not is_done("fit")
    logs.append(start("evaluate").kill_when(lambda log: "predict" in log))
    assert "fit: goes on after epoch" in logs[-1]
    assert is_done("fit") and not is_done("evaluate")
    last = start("last").finish()
    for stage in ("pretrain", "encode", "fit"):
        assert f"{stage}: {folder / stage} is up to date" in last
    assert "epoch" not in last
    assert json.loads((folder / "evaluate" / "metrics.json").read_text(encoding="utf-8"))["rankers"]["tf_lift"]["all"]
    assert sorted(path.name for path in folder.iterdir()) == ["encode", "evaluate", "fit", "pretrain"]
    for stage in ("pretrain", "fit"):
        assert len(json.loads((folder / stage / "history.json").read_text(encoding="utf-8"))["loss"]) == 4
        # An epoch's line is logged after its checkpoint: the kill may have lost one line, and no epoch may be there twice.
        lines = [
            line
            for log in logs
            for line in log.splitlines()
            if f"{stage} epoch" in line and ": loss" in line.replace("train_log_", "")
        ]
        numbers = [line.split(f"{stage} epoch ")[1].split(":")[0] for line in lines]
        assert len(set(numbers)) == len(numbers) and set(numbers) >= {"2", "3", "4"} - {numbers[0]}


@pytest.mark.parametrize(
    ("override", "rerun"),
    [
        ("predictor.contexts=none", ["fit", "evaluate"]),
        ("predictor.recency_days=[1]", ["fit", "evaluate"]),
        ("training.learning_rate=0.01", ["fit", "evaluate"]),
        ("pretraining.mask_ratio=0.1", ["pretrain", "encode", "fit", "evaluate"]),
        ("encoder.num_layers=1", ["pretrain", "encode", "fit", "evaluate"]),
        ("seed=8", ["pretrain", "encode", "fit", "evaluate"]),
        ("retrieval.num_neighbours=3", ["dataset", "pretrain", "encode", "fit", "evaluate"]),
        ("data_seed=8", ["dataset", "pretrain", "encode", "fit", "evaluate"]),
        ("run=run", []),
    ],
)
def test_a_changed_configuration_reruns_what_depends_on_it(tiny: Any, override: str, rerun: list[str]) -> None:
    tiny.trained()
    workspace = Workspace(tiny.load(*tiny.overrides(), override))
    stages = ["dataset", "pretrain", "encode", "fit", "evaluate"]
    assert [stage for stage in stages if not workspace.is_fresh(stage)] == rerun


def test_a_finished_stage_is_not_touched_again(tiny: Any) -> None:
    folder = tiny.trained().run_dir
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert tiny.trained().run_dir == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
