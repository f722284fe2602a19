"""Trains a ranker with some settings, for the sake of one number on validation."""

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tf_lift.baselines.no_learning import Candidates, hash_candidates
from tf_lift.baselines.objective import Objective, choose_objective, measure_objective
from tf_lift.baselines.own_model import score_with_overrides
from tf_lift.baselines.ranker_job import RankerJob
from tf_lift.baselines.registry import RankerEntry, find_ranker
from tf_lift.baselines.train_peer import train_and_score
from tf_lift.config.hashing import hash_json
from tf_lift.slate_grid import is_ranking
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.own_space import build_own_space
from tf_lift.tuning.search_space import SearchSpace
from tf_lift.workspace import Workspace

OWN = "tf_lift"  # its settings are the configuration's keys, those of the data set among them
_VALIDATION = ("validation",)


@dataclasses.dataclass(frozen=True)
class TrialRunner:
    """One ranker on one configuration.

    Attributes:
        source: the configuration; its data set is made where it is not there.
        ranker: a name of the registry.
        seed: of every training.
        preprocess: makes the data set of a configuration.
    """

    source: ConfigSource
    ranker: str
    seed: int
    preprocess: Callable[[ConfigSource], None]

    @functools.cached_property
    def workspace(self) -> Workspace:
        """The configuration's folders, with its data set."""
        return self._prepare(self.source)

    @functools.cached_property
    def entry(self) -> RankerEntry:
        """The ranker."""
        return find_ranker(self.ranker)

    @property
    def folder(self) -> Path:
        """Where all searches of the ranker keep what they need."""
        return self.workspace.root / "tuning" / "".join(c if c.isalnum() else "_" for c in self.ranker)

    @functools.cached_property
    def objective(self) -> Objective:
        """What settings are compared by."""
        return choose_objective(self._validation)

    @functools.cached_property
    def space(self) -> SearchSpace:
        """What may be chosen.

        Raises:
            ValueError: the ranker has nothing to choose, or the data set, whose slates decide, cannot be made.
        """
        if self.ranker == OWN:
            return build_own_space(self.source.load())
        if not self.entry.search_space:
            raise ValueError(
                f"A ranker must have settings to be tuned. Received: {self.ranker!r}, which has none. Choose a learned ranker."
            )
        choices, config = dict(self.entry.search_space), self.source.load()
        if config.split.mode == "rolling":
            choices |= self.entry.rolling_space
        if config.transitions is not None:
            choices |= self.entry.tables_space
        if self.entry.ranking_space and is_ranking(self._validation.slates):
            choices |= self.entry.ranking_space
        return SearchSpace(choices, {name: self._default(name) for name in choices})

    @property
    def epochs_key(self) -> str:
        """The setting that bounds the epochs."""
        return "num_epochs" if self.entry.settings_class else "training.num_epochs"

    @property
    def max_epochs(self) -> int:
        """The epochs without a choice.

        Raises:
            ValueError: the ranker has no epochs.
        """
        try:
            return int(self._default(self.epochs_key))
        except AttributeError as error:
            raise ValueError(
                f"Tuner 'hyperband' needs a ranker that is trained by epochs. Received: {self.ranker!r}. Choose another tuner."
            ) from error

    def check(self, settings: Mapping[str, Any]) -> None:
        """Checks that settings are the ranker's and fit together, before anything is trained.

        Raises:
            ValueError: they are not, do not, or change nothing that a ranker learns.
        """
        if self.entry.settings_class is not None:
            self.entry.read_settings(settings)
            return
        outside = [key for key in settings if "." not in key or key.startswith(("source.", "pipeline.", "export."))]
        if outside:
            raise ValueError(
                f"A trial's settings must be keys of what is learnt, as section.key. Received: {', '.join(outside)}. "
                "Pass them as --set, to all trials."
            )
        if self.ranker == OWN:
            self.source.with_settings(settings).load()
            return
        config = self.source.load()
        trained = self.entry.configure(config, settings)
        if Workspace(trained).fingerprint("dataset") != Workspace(config).fingerprint("dataset"):
            raise ValueError(
                f"A peer's trials share the configuration's data set. Received: {dict(settings)}, which asks for another. Pass what the "
                "data set depends on as --set, to all trials."
            )

    def evaluate(self, settings: Mapping[str, Any], num_epochs: int | None = None) -> float:
        """The objective of some settings.

        Args:
            settings: those that are not the defaults.
            num_epochs: at most; None: the ranker's own.

        Raises:
            ValueError: settings that do not fit together, or that change what is ranked.
        """
        chosen = dict(settings) | ({self.epochs_key: num_epochs} if num_epochs else {})
        if self.ranker == OWN:
            workspace = self._prepare(self.source.with_settings(chosen))
            job = RankerJob(OWN, workspace, {}, self.seed, self._stages_dir(workspace), _VALIDATION)
            self._check_candidates(job.candidates("validation"), settings)
            return measure_objective(self._validation, score_with_overrides(job, {}))
        parts = [chosen, self.seed, *([dict(self.entry.fixed)] if self.entry.fixed else [])]
        digest = hash_json(parts)
        folder = self.folder / "trials" / digest
        scores = train_and_score(self.workspace, self.ranker, chosen, self.seed, folder, _VALIDATION)
        return measure_objective(self._validation, scores)

    def _check_candidates(self, candidates: Candidates, settings: Mapping[str, Any]) -> None:
        """Raises a ValueError where validation's candidates are not the configuration's own."""
        if hash_candidates(candidates) != hash_candidates(self._validation):
            raise ValueError(
                f"Trials must rank the same candidates. Received: {dict(settings)}, with which validation has others. Do not try what "
                "changes the targets or their negatives; pass it as --set, to all trials."
            )

    @functools.cached_property
    def _validation(self) -> Candidates:
        return RankerJob(self.ranker, self.workspace, {}, self.seed, self.folder, _VALIDATION).candidates("validation")

    def _default(self, name: str) -> Any:
        """A setting's value without a choice.

        Raises:
            AttributeError: there is no such setting.
        """
        settings_class = self.entry.settings_class
        if settings_class is not None:
            return getattr(settings_class(), name)
        if name in self.entry.fixed:
            return self.entry.fixed[name]
        return self.source.load().value(name)

    def _prepare(self, source: ConfigSource) -> Workspace:
        workspace = Workspace(source.load())
        if not workspace.is_fresh("dataset"):
            self.preprocess(source)
            workspace.check_fresh("dataset")
        return workspace

    def _stages_dir(self, workspace: Workspace) -> Path:
        """The training folder of all trials with one encoder: its weights and states are made once, the predictor by each trial."""
        config = dataclasses.replace(workspace.config, seed=self.seed)
        return self.folder / "stages" / Workspace(config).fingerprint("pretrain")


def preprocess_in_a_process(source: ConfigSource) -> None:
    """Makes the data set of a configuration as its user would: tf_lift does not import the pipeline.

    Raises:
        ValueError: preprocessing failed.
    """
    overrides = [argument for text in source.overrides for argument in ("--set", text)]
    command = [sys.executable, "-m", "beam.preprocess", "--config", str(source.path), *overrides]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ValueError(
            f"The data set must be made before a search. Received: exit status {code} of `{' '.join(command[1:])}`. Its message is above."
        )
