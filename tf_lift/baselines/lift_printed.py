"""LIFT exactly as printed (Zheng et al., KDD 2025), with and without pretraining: this project's predictor with other switches."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_lift.baselines.own_model import override_config, score_with_overrides
from tf_lift.baselines.ranker_job import RankerJob
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.config import Config
from tf_lift.workspace import Workspace

# Eqs. 4 to 11 and 14 to 18 without a departure. Eq. 13's idf belongs to the data set, as in configs/*_paper.toml. The order counts, for
# each key is checked with those before it.
PRINTED: Mapping[str, Any] = {
    "situation.relations": "none",
    "situation.encoded_neighbours": 0,
    "situation.overlap": False,
    "predictor.next_item_logit": False,
    "pretraining.next_item": False,
    "pretraining.query_share": 1.0,
    "encoder.kind": "causal",
    "encoder.user_fields": True,
    "predictor.contexts": "both",
    "predictor.own_history": True,
    "predictor.target_state": False,
    "predictor.residual_logit": False,
    "predictor.raw_inputs": False,
    "predictor.neighbour_label": False,
    "predictor.score_bias": False,
    "predictor.match_statistics": False,
    "predictor.history_statistics": False,
    "predictor.recency_days": (),
    "predictor.standardise": False,
    "predictor.joint": False,
    "predictor.initial_embeddings": "random",
    "predictor.freeze_embeddings": False,
    "pretraining.learning_rate_decay": "none",
    "training.learning_rate_decay": "none",
    "training.loss": "pointwise",
    # The paper names no numbers but a mask ratio "usually above 0.5": these are this project's defaults, for a configuration may have
    # none that fit a loss of masked behaviours.
    "pretraining.mask_ratio": 0.6,
    "pretraining.negatives_per_row": 1,
    "pretraining.learning_rate": 1e-3,
    "pretraining.num_epochs": 10,
    "pretraining.patience": 2,
    "training.patience": 8,  # not the default: at a constant rate the validation loss goes up and down
}


def score_printed(job: RankerJob) -> RankerScores:
    """LIFT as printed; where the pool holds positives alone, as in protocol "honest", its loss is read at drawn items instead.

    Raises:
        ValueError: an unknown setting.
    """
    return _score(job, configure_printed(job.workspace.config, job.settings))


def score_without_pretraining(job: RankerJob) -> RankerScores:
    """LIFT as printed, but for the encoder, which keeps its initial weights (Table 2, "no pretraining").

    Raises:
        ValueError: an unknown setting.
    """
    return _score(job, configure_without_pretraining(job.workspace.config, job.settings))


def configure_printed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with LIFT's switches, and with settings after them.

    Raises:
        ValueError: an unknown setting, or settings that do not fit together.
    """
    return _configure(config, True, settings)


def configure_without_pretraining(config: Config, settings: Mapping[str, Any]) -> Config:
    """`configure_printed` without pretraining."""
    return _configure(config, False, settings)


def _configure(config: Config, is_pretrained: bool, settings: Mapping[str, Any]) -> Config:
    switches = {
        "situation.tables": config.transitions is not None,  # the data set keeps them, unread
        "pretraining.enabled": is_pretrained,
        **PRINTED,
        "pretraining.targets": "masked" if config.has_classes or not is_pretrained else "queries",
    }
    return override_config(config, {**switches, **settings})


def _score(job: RankerJob, config: Config) -> RankerScores:
    # In the job's own configuration, so that the data set is opened with the switches too: the predictor is built from it.
    return score_with_overrides(dataclasses.replace(job, workspace=Workspace(config)), {})
