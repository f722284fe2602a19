"""What a search found: its trials, the best settings, and how they are written and shown."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from tf_lift.baselines.objective import Objective
from tf_lift.workspace import write_json

DEFAULT = "default"  # the trial of the settings that are there without a search
GIVEN = "given"  # a trial of settings that were named, before its number
_FILE = "tuning.json"
_MOST_ROWS = 20


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        name: DEFAULT, GIVEN and its number from 1, or the tuner's number from 1, in order of their ends.
        settings: those that are not the defaults.
        value: the objective; None for a trial that failed.
        seconds: wall time, without what earlier trials had made already.
        fault: the message of a trial that failed.
    """

    name: str
    settings: Mapping[str, Any]
    value: float | None
    seconds: float
    fault: str = ""

    @property
    def is_given(self) -> bool:
        """Whether its settings were given, not drawn by the tuner."""
        return self.name.startswith(GIVEN)


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """A search.

    Attributes:
        ranker: its name in the registry.
        config_name: of the configuration.
        protocol: one sentence to print beside every number.
        tuner: how it was searched.
        seed: of every training.
        objective: what settings were compared by.
        trials: in order; the first is DEFAULT's.
    """

    ranker: str
    config_name: str
    protocol: str
    tuner: str
    seed: int
    objective: Objective
    trials: Sequence[TrialRow]

    @property
    def num_trials(self) -> int:
        """Trials of the tuner."""
        return len(self.trials) - 1 - self.num_given

    @property
    def num_given(self) -> int:
        """Trials of settings that were given."""
        return sum(trial.is_given for trial in self.trials)

    def describe_trials(self) -> str:
        """How many trials of which kind, beside the default's, in words."""
        words = f"{self.num_trials} trials of {self.tuner} search"
        return f"{words} and {self.num_given} given" if self.num_given else words

    def first(self, num_trials: int) -> "TuningResult":
        """What a search of so many trials had found: without later ones, and without those given."""
        default, *others = (trial for trial in self.trials if not trial.is_given)
        return dataclasses.replace(self, trials=[default, *others[:num_trials]])

    @property
    def seconds(self) -> float:
        """Of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def best(self) -> TrialRow:
        """The best trial; the first among equals, so that the defaults stay unless something beats them.

        Raises:
            ValueError: no trial succeeded.
        """
        best = None
        for trial in self.trials:
            if trial.value is not None and (best is None or self._is_better(trial, best)):
                best = trial
        if best is None:
            raise ValueError(
                f"At least one trial must succeed. Received: {len(self.trials)} that failed, the first with: {self.trials[0].fault}"
            )
        return best

    @classmethod
    def read(cls, folder: Path) -> "TuningResult":
        """A search as `write` left it."""
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        names = ("ranker", "config_name", "protocol", "tuner", "seed")
        trials = [TrialRow(**trial) for trial in content["trials"]]
        return cls(
            **{name: content[name] for name in names}, objective=Objective(**content["objective"]), trials=trials
        )

    def write(self, folder: Path) -> None:
        """Writes tuning.json and tuning.png."""
        best = self.best
        content = {
            **{
                name: getattr(self, name)
                for name in ("ranker", "config_name", "protocol", "tuner", "seed", "num_trials", "num_given")
            },
            "objective": dataclasses.asdict(self.objective),
            "best": dataclasses.asdict(best),
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }
        write_json(folder / _FILE, json.loads(json.dumps(content)))
        self._plot(folder / "tuning.png")

    def print_table(self, console: Console) -> None:
        """Prints the best trials and the default's."""
        table = Table(
            title=f"{self.ranker} on {self.config_name}: {self.describe_trials()}",
            caption=f"{self.protocol} {self.objective.name} is on validation; seed {self.seed}. Shown: settings that are not the defaults.",
        )
        table.add_column("trial")
        for name in (self.objective.name, "seconds"):
            table.add_column(name, justify="right")
        table.add_column("settings", overflow="fold")
        measured = [trial for trial in self.trials if trial.value is not None]
        sign = 1.0 if self.objective.direction == "min" else -1.0
        for trial in sorted(measured, key=lambda trial: sign * (trial.value or 0.0))[:_MOST_ROWS]:
            table.add_row(trial.name, f"{trial.value:.4f}", f"{trial.seconds:.0f}", _describe(trial.settings))
        console.print(table)
        for trial in self.trials:
            if trial.value is None:
                console.print(f"Trial {trial.name} failed ({_describe(trial.settings)}): {trial.fault}")

    def _is_better(self, trial: TrialRow, other: TrialRow) -> bool:
        return (
            trial.value is not None and other.value is not None and self.objective.is_better(trial.value, other.value)
        )

    def _plot(self, path: Path) -> None:
        """Draws each trial's value, and the best so far."""
        measured = [(place, trial.value) for place, trial in enumerate(self.trials) if trial.value is not None]
        places, values = [place for place, _ in measured], [value for _, value in measured]
        best = values[:1]
        for value in values[1:]:
            best.append(value if self.objective.is_better(value, best[-1]) else best[-1])
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(places, values, "o", markersize=5, label="a trial")
        axes.step(places, best, where="post", label="the best so far")
        if self.trials[0].value is not None:
            axes.axhline(self.trials[0].value, color="grey", linestyle=":", label="the defaults (trial 0)")
        axes.set(
            xlabel="trial", ylabel=f"{self.objective.name} on validation", title=f"{self.ranker} on {self.config_name}"
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=130)


def _describe(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items()) or "the defaults"
