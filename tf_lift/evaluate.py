"""Stage `evaluate`: the test split, the baselines on the same examples, and the report."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift import metrics
from tf_lift.baselines.no_learning import Candidates, apply_platt, fit_platt, score_baselines
from tf_lift.baselines.objective import choose_setting
from tf_lift.config import Config
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import ExampleSpec, build_example_spec
from tf_lift.encode import read_datastore
from tf_lift.evaluation_slices import slice_masks
from tf_lift.evaluation_tables import print_tables, result_tables
from tf_lift.fit import read_predictor
from tf_lift.models.predictor import Predictor
from tf_lift.report import Report, write_report
from tf_lift.report_content import calibration_curves, describe_settings, roc_curves, training_curves
from tf_lift.slate_grid import is_ranking, slate_grid
from tf_lift.worked_predictions import build_worked_predictions
from tf_lift.workspace import Workspace, write_json

logger = logging.getLogger(__name__)

MODEL = "tf_lift"
_NUM_WORKED = 10


@dataclasses.dataclass(frozen=True)
class SplitPredictions:
    """The predictor's answers on a split.

    Attributes:
        candidates: the real candidates, flat.
        probabilities: float32 [n].
        users: int32 [n] user index of each candidate's slate, whether or not its id was known then.
        rows: int64 [S] target row of each slate.
        first_batch: the first parsed batch, with its probabilities and attention, for the report.
    """

    candidates: Candidates
    probabilities: np.ndarray
    users: np.ndarray
    rows: np.ndarray
    first_batch: Mapping[str, np.ndarray]


def run(workspace: Workspace) -> None:
    """Evaluates the predictor and writes metrics.json, candidates.npz and report.html, unless fresh ones are there.

    Raises:
        ValueError: an earlier stage's artefact is missing or stale.
    """
    folder = workspace.stage_dir("evaluate")
    if workspace.is_fresh("evaluate"):
        logger.info("evaluate: %s is up to date", folder)
        print_tables(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
        return
    dataset = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    model = read_predictor(workspace, dataset, read_datastore(workspace, dataset), spec)
    train = read_candidates(dataset, spec, "train")
    validation = predict_split(model, dataset, spec, "validation")
    test = predict_split(model, dataset, spec, "test")
    results = evaluate_rankers(dataset, train, validation, test)
    with workspace.writing("evaluate", {}) as aside:
        write_json(aside / "metrics.json", results)
        np.savez_compressed(
            aside / "candidates.npz",
            rows=test.rows[test.candidates.slates],
            fields=test.candidates.fields,
            labels=test.candidates.labels,
            probabilities=test.probabilities,
        )
        write_report(_build_report(workspace, dataset, test, results), aside / "report.html")
    print_tables(results)
    logger.info("evaluate: the report is %s", folder / "report.html")


def predict_split(model: Predictor, dataset: Dataset, spec: ExampleSpec, split: str) -> SplitPredictions:
    """Predicts the examples of a split, in file order."""

    @tf.function(reduce_retracing=True)
    def predict(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        prediction = model(batch, training=False)
        return tf.sigmoid(prediction.logits), prediction.attention

    probabilities, parts, rows = [], [], []
    first_batch: dict[str, np.ndarray] = {}
    batches = read_examples(dataset, split, spec, model.config.training.batch_size)
    for batch in tqdm(batches, desc=f"predict {split}", unit="batch", mininterval=1.0):
        probability, attention = predict(batch)
        arrays = {name: value.numpy() for name, value in batch.items()}
        if not first_batch:
            first_batch = arrays | {"probability": probability.numpy(), "attention": attention.numpy()}
        probabilities.append(probability.numpy()[arrays["mask"]])
        parts.append(arrays)
        rows.append(arrays["row"])
    target_rows = np.concatenate(rows)
    candidates = _flatten(parts)
    users = dataset.log.user_indices()[target_rows][candidates.slates]
    return SplitPredictions(candidates, np.concatenate(probabilities), users, target_rows, first_batch)


def read_candidates(dataset: Dataset, spec: ExampleSpec, split: str) -> Candidates:
    """The candidates of a split, in file order."""
    batches = read_examples(dataset, split, spec, dataset.config.training.batch_size)
    return _flatten([{name: value.numpy() for name, value in batch.items()} for batch in batches])


def evaluate_rankers(
    dataset: Dataset, train: Candidates, validation: SplitPredictions, test: SplitPredictions
) -> dict[str, Any]:
    """Metrics of the model and of every baseline, on the whole test split and on its slices.

    Returns:
        `protocol`, `seed`, `num_examples`, and `rankers`: name -> slice -> metric -> number.
    """
    info = dataset.info
    on_validation = score_baselines(dataset, [train], validation.candidates, info.boundaries.validation_from)
    on_test = score_baselines(dataset, [train, validation.candidates], test.candidates, info.boundaries.test_from)
    own = test.probabilities.astype(np.float64)
    probabilities, scores_by_name = {MODEL: own}, {MODEL: own}
    for name, settings in on_test.items():
        labels = validation.candidates.labels
        best = choose_setting(validation.candidates, on_validation[name])
        scores_by_name[name] = settings[best]
        probabilities[name] = apply_platt(settings[best], fit_platt(on_validation[name][best], labels))
    slices = slice_masks(dataset, test.rows)
    rankers = {
        name: {
            label: _measure(test, chosen, probabilities[name], scores_by_name[name])
            for label, chosen in slices.items()
            if chosen.any()
        }
        for name in scores_by_name
    }
    return {
        "protocol": describe_protocol(dataset.config),
        "name": dataset.config.name,
        "seed": dataset.config.seed,
        "num_slates": len(test.rows),
        "num_candidates": len(test.probabilities),
        "slice_slates": {label: int(chosen.sum()) for label, chosen in slices.items()},
        "rankers": rankers,
    }


def describe_protocol(config: Config) -> str:
    """One sentence to print beside every number."""
    negatives, split = config.negatives, config.split
    if negatives.protocol == "none":
        labels = "the log's own labels"
    elif negatives.protocol == "rim":
        labels = (
            f'protocol "rim": {negatives.per_target} negatives a positive, {negatives.own_share:.0%} of them from the '
            "user's own pool rows" + ("; a log of real rows alone" if negatives.dropped_per_pool_row else "")
        )
    else:
        labels = (
            f'protocol "honest": {negatives.per_target} negatives a positive, {negatives.popularity_share:.0%} of them by popularity and '
            "the others uniform, none of them an item that the user had before"
        )
    return f"Split by global time, {split.mode} pool; {labels}; choices made on validation alone."


def _measure(
    test: SplitPredictions, chosen: np.ndarray, probabilities: np.ndarray, scores: np.ndarray
) -> dict[str, float]:
    inside = chosen[test.candidates.slates]
    labels = test.candidates.labels[inside]
    measured = metrics.binary_metrics(labels, probabilities[inside], test.users[inside])
    # Order is the score's own: Platt's scaling may have turned a rule that is wrong on this data upside down.
    measured["AUC"] = metrics.auc(labels, scores[inside])
    measured["per-user AUC"] = metrics.per_user_auc(test.users[inside], labels, scores[inside])[0]
    if is_ranking(test.candidates.slates):
        slates = np.unique(test.candidates.slates[inside], return_inverse=True)[1]
        wide, mask = slate_grid(slates, labels.astype(np.float64))
        measured |= metrics.ranking_metrics(metrics.slate_ranks(wide, slate_grid(slates, scores[inside])[0], mask))
    return measured


def _flatten(parts: list[dict[str, np.ndarray]]) -> Candidates:
    """Drops the padding of parsed batches."""
    counts = np.concatenate([part["mask"].sum(axis=1) for part in parts])
    slates = np.repeat(np.arange(len(counts)), counts)
    times = np.concatenate([part["time"] for part in parts])

    def real(name: str) -> np.ndarray:
        return np.concatenate([part[name][part["mask"]] for part in parts])

    return Candidates(
        real("fields"), real("label"), slates, times[slates], real("match_counts"), real("match_positives")
    )


def _build_report(workspace: Workspace, dataset: Dataset, test: SplitPredictions, results: dict[str, Any]) -> Report:
    histories = {
        stage: json.loads((workspace.stage_dir(stage) / "history.json").read_text(encoding="utf-8"))
        for stage in ("pretrain", "fit")
    }
    return Report(
        title=f"tf_lift on {dataset.config.name}",
        protocol=results["protocol"],
        settings=describe_settings(dataset, workspace.check_fresh("dataset")["counts"]),
        tables=result_tables(results),
        curves=training_curves(histories),
        roc=roc_curves(MODEL, test.candidates.labels, test.probabilities),
        calibration=calibration_curves(MODEL, test.candidates.labels, test.probabilities),
        worked=build_worked_predictions(dataset, test.first_batch, _NUM_WORKED),
    )
