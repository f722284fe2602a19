"""What the report shows of a run, but for the tables and the worked predictions."""

from collections.abc import Mapping

import numpy as np

from tf_lift import metrics
from tf_lift.data.dataset_files import Dataset
from tf_lift.report import Curve

_STAGE_TITLES = {"pretrain": "Pretraining: hidden behaviours", "fit": "Predictor"}


def describe_settings(dataset: Dataset, counts: Mapping[str, int]) -> dict[str, str]:
    """The facts at the head of the report."""
    config = dataset.config
    return {
        "interactions": f"{counts['kept']:,} of {counts['read']:,} read; {counts['rejected']:,} rejected",
        "users, items": f"{counts['users']:,}, {counts['items']:,}",
        "pool, train, validation, test rows": ", ".join(
            f"{counts[f'{name}_window']:,}" for name in ("pool", "train", "validation", "test")
        ),
        "targets": ", ".join(f"{counts[f'{name}_targets']:,} {name}" for name in ("train", "validation", "test")),
        "neighbours K, context L": f"{config.retrieval.num_neighbours}, {config.retrieval.context_length}",
        "retrieval": f"{config.split.mode}, idf {config.retrieval.idf}, {len(dataset.info.match_sets)} match sets, "
        + ("other users only" if config.retrieval.exclude_own_user else "all users"),
        "encoder": f"{config.encoder.kind}, width {config.encoder.state_dim}, {config.encoder.num_layers} layers",
        "contexts": config.predictor.contexts,
        "seed": str(config.seed),
    }


def training_curves(histories: Mapping[str, Mapping[str, list[float]]]) -> list[Curve]:
    """LogLoss of training and validation by epoch, for each stage that was trained."""
    curves = []
    for stage, history in histories.items():
        series = {}
        for label, key in (("train", "train_log_loss"), ("validation", "loss")):
            if history.get(key):
                series[label] = ([float(epoch) for epoch in range(1, len(history[key]) + 1)], history[key])
        if series:
            curves.append(Curve(_STAGE_TITLES[stage], "epoch", "LogLoss", series))
    return curves


def roc_curves(name: str, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The ROC curve of one ranker."""
    return {name: metrics.roc_curve(labels, probabilities)}


def calibration_curves(
    name: str, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The calibration curve of one ranker."""
    return {name: metrics.calibration_curve(labels, probabilities)}
