"""Trains any ranker of the registry and scores it: `python -m tf_lift.baselines.train_peer --config configs/X.toml --ranker din`."""

import argparse
import dataclasses
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift import metrics
from tf_lift.baselines.no_learning import apply_platt, fit_platt
from tf_lift.baselines.peer import Peer
from tf_lift.baselines.ranker_job import RankerJob, count_parameters, measured
from tf_lift.baselines.ranker_scores import RankerScores, read_scores, write_scores
from tf_lift.baselines.registry import RANKERS, find_ranker
from tf_lift.config import load_config, parse_assignments
from tf_lift.config.flags import add_config_flags
from tf_lift.config.hashing import hash_json
from tf_lift.datastore import build_datastore
from tf_lift.evaluate import describe_protocol
from tf_lift.slate_grid import is_ranking, slate_grid
from tf_lift.strategy import prepare_devices
from tf_lift.training_loop import Schedule, build_learning_rate, train_epochs
from tf_lift.workspace import Workspace, write_json

logger = logging.getLogger(__name__)

SPLITS = ("validation", "test")


def train_and_score(
    workspace: Workspace,
    ranker: str,
    settings: Mapping[str, Any],
    seed: int,
    folder: Path,
    splits: Sequence[str] = SPLITS,
) -> RankerScores:
    """Trains a ranker on train, stops it by validation, and scores the splits.

    What is done already is read from the folder: scores of the same data set, ranker, settings and seed, or a killed run's
    checkpoints.

    Args:
        workspace: the configuration's folders; its data set is there.
        ranker: a name of the registry.
        settings: the ranker's settings that are not its defaults; for kind "ours", keys of the configuration.
        seed: of every random choice.
        folder: of this run alone.
        splits: some of SPLITS.

    Raises:
        ValueError: the data set is missing or stale, or has labels that the ranker cannot rank; the ranker or a setting is unknown.
    """
    entry = find_ranker(ranker)
    protocol = workspace.config.negatives.protocol
    if protocol not in entry.protocols:
        raise ValueError(
            f"Ranker {ranker!r} needs labels of negatives.protocol {' or '.join(map(repr, entry.protocols))}. "
            f"Received: {protocol!r}. Leave it out."
        )
    seeded = Workspace(dataclasses.replace(workspace.config, seed=seed))
    job = RankerJob(ranker, seeded, entry.read_settings(settings), seed, folder, tuple(splits))
    stamp = _prepare_folder(job)
    earlier = read_scores(folder, stamp, splits)
    if earlier is not None:
        return earlier
    build = entry.build
    is_peer = isinstance(build, type) and issubclass(build, Peer)
    scores: RankerScores = train_peer(build, job) if is_peer else build(job)
    write_scores(scores, folder, stamp)
    return scores


def train_peer(build: type[Peer], job: RankerJob) -> RankerScores:
    """Trains a peer: its own first stage, then the train examples.

    Args:
        build: the peer.
        job: what to train it on.
    """
    settings, answered = job.settings, job
    job = job.with_batch_size(settings.batch_size)
    config = job.workspace.config
    tf.keras.utils.set_random_seed(job.seed)
    datastore = build_datastore(job.dataset.log, None, config.retrieval.context_length)
    model = build(settings, config, job.dataset.info, datastore, job.ranker)
    validation = job.examples("validation").cache()
    model(next(iter(validation)), training=False)  # makes the variables
    seconds: dict[str, float] = {}
    with measured(seconds, "pretrain"):
        model.pretrain(job.dataset, job.folder / "pretrain", job.folder / "pretrain")
    rate = build_learning_rate(
        settings.learning_rate,
        settings.learning_rate_decay,
        num_epochs=settings.num_epochs,
        num_examples=job.dataset.num_examples("train"),
        batch_size=config.training.batch_size,
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(rate))
    with measured(seconds, "fit"):
        schedule = Schedule.of_falling_rate(settings.num_epochs, settings.patience, settings.learning_rate_decay)
        folder = job.folder / "fit"
        history = train_epochs(
            job.ranker,
            model,
            lambda epoch: job.examples("train", job.seed * 1000 + epoch),
            lambda: model.validate(validation),
            schedule,
            folder,
            folder,
        )
    scores = {}
    for split in job.splits:
        with measured(seconds, f"score {split}"):
            scores[split] = _score_split(model, answered, split)
    return RankerScores(
        scores.get("validation", np.zeros(0)),
        scores.get("test", np.zeros(0)),
        is_probability=settings.loss == "pointwise",
        seconds=seconds,
        num_parameters=count_parameters(model),
        validation_loss=min(history["loss"]),
    )


def _score_split(model: Peer, job: RankerJob, split: str) -> np.ndarray:
    """Probabilities, or a listwise peer's logits, of a split's real candidates, float64 [n]."""

    @tf.function(reduce_retracing=True)
    def answer(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        logits = tf.boolean_mask(model(batch, training=False), batch["mask"])
        return tf.sigmoid(logits) if model.settings.loss == "pointwise" else logits

    batches = tqdm(job.examples(split), desc=f"{model.name} {split}", unit="batch", leave=False, mininterval=1.0)
    return np.concatenate([answer(batch).numpy().astype(np.float64) for batch in batches])


def _prepare_folder(job: RankerJob) -> str:
    """The stamp of a run: a hash of what its answers depend on. Files of another run are removed from its folder."""
    settings = job.settings if isinstance(job.settings, dict) else dataclasses.asdict(job.settings)
    parts = [
        job.ranker,
        settings,
        job.seed,
        find_ranker(job.ranker).hash_config(job.workspace.config),
        job.workspace.check_fresh("dataset"),
    ]
    stamp = hash_json(parts)
    path = job.folder / "stamp"
    if not path.is_file() or path.read_text(encoding="utf-8") != stamp:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        path.write_text(stamp, encoding="utf-8")
    return stamp


def measure_test(job: RankerJob, scores: RankerScores) -> dict[str, float]:
    """Test's AUC, LogLoss (after Platt's scaling on validation where scores are no probabilities) and, for slates, ranking metrics.

    Args:
        job: what was scored.
        scores: with both splits.
    """
    test, validation = job.candidates("test"), job.candidates("validation")
    probabilities = scores.test
    if not scores.is_probability:
        probabilities = apply_platt(scores.test, fit_platt(scores.validation, validation.labels))
    measured = {"AUC": metrics.auc(test.labels, scores.test), "LogLoss": metrics.log_loss(test.labels, probabilities)}
    if not is_ranking(test.slates):
        return measured
    labels, mask = slate_grid(test.slates, test.labels)
    ranks = metrics.slate_ranks(labels, slate_grid(test.slates, scores.test)[0], mask)
    return measured | metrics.ranking_metrics(ranks)


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_lift.baselines.train_peer",
        description="Trains one ranker of the comparison and scores it on test. Run `python -m beam.preprocess` first.",
    )
    add_config_flags(parser)
    parser.add_argument("--ranker", required=True, choices=tuple(RANKERS), metavar="NAME", help="%(choices)s")
    parser.add_argument(
        "--set-ranker", action="append", default=[], metavar="KEY=VALUE", help="one setting of the ranker; repeatable"
    )
    return parser.parse_args(arguments)


def run(workspace: Workspace, ranker: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a ranker with the configuration's seed, and writes its scores and metrics.json into the run's folder `rankers/`.

    Args:
        workspace: the configuration's folders.
        ranker: a name of the registry.
        settings: as `train_and_score` takes them.

    Returns:
        What metrics.json holds.
    """
    folder = workspace.run_dir / "rankers" / ranker.replace(" ", "_").replace(",", "")
    seed = workspace.config.seed
    scores = train_and_score(workspace, ranker, settings, seed, folder)
    job = RankerJob(ranker, workspace, settings, seed, folder, SPLITS)
    content = {
        "ranker": ranker,
        "settings": dict(settings),
        "seed": seed,
        "protocol": describe_protocol(workspace.config),
        "test": measure_test(job, scores),
        "num_parameters": scores.num_parameters,
        "seconds": dict(scores.seconds),
    }
    write_json(folder / "metrics.json", content)
    return content


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow times its own checkpoints there
    try:
        config = load_config(flags.config, flags.set)
        prepare_devices(config.training)
        results = run(Workspace(config), flags.ranker, parse_assignments(flags.set_ranker))
    except ValueError as error:
        sys.exit(f"train_peer: {error}")
    for name, value in results["test"].items():
        logger.info("%s on test: %s %.4f", flags.ranker, name, value)


if __name__ == "__main__":
    main()
