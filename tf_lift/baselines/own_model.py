"""This project's predictor as a ranker of the registry, with other values for some keys of its configuration."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lift import train
from tf_lift.baselines.ranker_job import RankerJob, count_parameters, measured
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.config import Config, convert_value
from tf_lift.encode import read_datastore
from tf_lift.evaluate import predict_split
from tf_lift.fit import read_predictor
from tf_lift.workspace import Workspace

_STAGES = ("pretrain", "encode", "fit")


def score_own(job: RankerJob) -> RankerScores:
    """Trains the predictor and scores it; its settings are keys of the configuration.

    Raises:
        ValueError: an unknown key, or one that changes the data set: preprocess with it first.
    """
    return score_with_overrides(job, job.settings)


def score_with_overrides(job: RankerJob, overrides: Mapping[str, Any]) -> RankerScores:
    """Runs the training stages in the job's folder, and reads the predictor.

    Args:
        job: what to train on; its settings are not read.
        overrides: "section.key" -> value.
    """
    config = override_config(job.workspace.config, overrides)
    config = dataclasses.replace(config, seed=job.seed, run=str(job.folder.absolute()))
    workspace = Workspace(config)
    _take_over(Workspace(dataclasses.replace(config, run=job.workspace.config.run)), workspace)
    seconds: dict[str, float] = {}
    for stage in _STAGES:
        with measured(seconds, stage):
            train.run(config, [stage])
    dataset = dataclasses.replace(job.dataset, config=config)
    model = read_predictor(workspace, dataset, read_datastore(workspace, dataset), job.spec)
    scores = {}
    for split in job.splits:
        with measured(seconds, f"score {split}"):
            scores[split] = predict_split(model, dataset, job.spec, split).probabilities.astype(np.float64)
    history = json.loads((workspace.stage_dir("fit") / "history.json").read_text(encoding="utf-8"))
    return RankerScores(
        scores.get("validation", np.zeros(0)),
        scores.get("test", np.zeros(0)),
        is_probability=config.training.loss == "pointwise",  # else as calibrated as validation allowed
        seconds=seconds,
        num_parameters=count_parameters(model),
        validation_loss=min(history["loss"]),
    )


def _take_over(own: Workspace, workspace: Workspace) -> None:
    """Copies the encoder and the datastore of the configuration's own run, if they are what this one would train: same seed and all."""
    for stage in _STAGES[:2]:
        if own.is_fresh(stage) and not workspace.is_fresh(stage):
            target = workspace.stage_dir(stage)
            partial = target.with_name(f"{stage}.partial")
            for stale in (partial, target):
                shutil.rmtree(stale, ignore_errors=True)
            shutil.copytree(own.stage_dir(stage), partial)
            partial.rename(target)  # a copy that was killed is not taken for a whole one


def override_config(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with other values for some keys.

    Args:
        config: the configuration.
        overrides: "section.key" -> value; lists become tuples.

    Raises:
        ValueError: an unknown key, or a value that it cannot hold.
    """
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        table: Any = getattr(config, section, None)
        known = [field.name for field in dataclasses.fields(table)] if dataclasses.is_dataclass(table) else []
        if name not in known:
            raise ValueError(
                f"A setting of tf_lift must read section.key, as in the configuration. Received: {key!r}. "
                f"Known keys of {section!r}: {', '.join(known) or 'none'}."
            )
        chosen = {name: convert_value(type(table), name, value)}
        changed: dict[str, Any] = {section: dataclasses.replace(table, **chosen)}
        config = dataclasses.replace(config, **changed)
    return config
