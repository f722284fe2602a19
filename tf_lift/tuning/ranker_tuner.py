"""A KerasTuner tuner whose trials are runs of a ranker."""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trials

from tf_lift.baselines.objective import Objective
from tf_lift.tuning.search_space import SearchSpace

TUNERS = ("random", "hyperband", "bayesian")
Evaluate = Callable[[Mapping[str, Any], int | None], float]


@dataclasses.dataclass(frozen=True)
class Search:
    """How a space is searched.

    Attributes:
        tuner: one of TUNERS.
        num_trials: at most; 0: none.
        max_epochs: of a trial; Hyperband's first ones have fewer.
        seed: of the search's random choices.
    """

    tuner: str
    num_trials: int
    max_epochs: int
    seed: int

    def __post_init__(self) -> None:
        if self.tuner not in TUNERS:
            raise ValueError(f"The tuner must be one of {', '.join(TUNERS)}. Received: {self.tuner!r}.")
        if self.num_trials < 0:
            raise ValueError(f"The number of trials must be 0 or more. Received: {self.num_trials}.")
        if self.tuner == "bayesian" and importlib.util.find_spec("sklearn") is None:
            raise ValueError(
                "Tuner 'bayesian' needs scikit-learn. Received: it is not installed. Install `keras-tuner[bayesian]`, or choose "
                "another tuner."
            )


class RankerTuner(base_tuner.BaseTuner):
    """Runs a function of settings as KerasTuner's trials.

    A search that was killed goes on with the trial that it was at; one that ended goes on if more trials are asked for.

    Args:
        search: how to search.
        space: what to choose from.
        objective: what the function returns.
        evaluate: from settings and a number of epochs (None: the settings' own) to the objective's value.
        folder: of KerasTuner's files; of this space and search alone.
        after_trial: called with each trial that has ended.
    """

    def __init__(
        self,
        search: Search,
        space: SearchSpace,
        objective: Objective,
        evaluate: Evaluate,
        folder: Path,
        after_trial: Callable[[trials.Trial], None],
    ) -> None:
        self._space, self._objective, self._evaluate, self._after_trial = space, objective, evaluate, after_trial
        super().__init__(build_oracle(search, space, objective), directory=str(folder.parent), project_name=folder.name)
        self.oracle.verbose = 0  # our own table says it better

    def run_trial(self, trial: trials.Trial) -> dict[str, float]:
        """One run, and its value."""
        values = trial.hyperparameters.values
        began = time.monotonic()
        value = self._evaluate(self._space.settings(values), values.get("tuner/epochs"))
        return {self._objective.name: value, "seconds": time.monotonic() - began}

    def on_trial_end(self, trial: trials.Trial) -> None:
        """Keeps the trial."""
        super().on_trial_end(trial)
        self._after_trial(self.oracle.get_trial(trial.trial_id))


def build_oracle(search: Search, space: SearchSpace, objective: Objective) -> keras_tuner.Oracle:
    """KerasTuner's part that chooses the trials."""
    shared = {
        "objective": keras_tuner.Objective(objective.name, objective.direction),
        "hyperparameters": space.hyperparameters(),
        "seed": search.seed,
        "max_consecutive_failed_trials": search.num_trials
        + 1,  # settings that exclude each other are no reason to stop
    }
    if search.tuner == "hyperband":
        oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=search.max_epochs, **shared)
        oracle.max_trials = search.num_trials
        return oracle
    oracles = {
        "random": keras_tuner.oracles.RandomSearchOracle,
        "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    }
    return oracles[search.tuner](max_trials=search.num_trials, **shared)
