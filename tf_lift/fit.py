"""Stage `fit`: the predictor is trained on the train window, with the encoder frozen (eq. 8) unless `predictor.joint`."""

import json
import logging
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_lift.baselines.no_learning import fit_platt
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import NO_RANK, ExampleSpec, build_example_spec
from tf_lift.data.situation_graphs import SituationGraphs, build_situation_graphs
from tf_lift.datastore import Datastore
from tf_lift.encode import read_datastore
from tf_lift.frozen_features import FrozenFeatures, find_frozen_features
from tf_lift.models.predictor import Predictor
from tf_lift.pretrain import build_pretrainer, read_encoder
from tf_lift.strategy import build_strategy, worker_index
from tf_lift.training_loop import Schedule, build_learning_rate, train_epochs
from tf_lift.workspace import Workspace

logger = logging.getLogger(__name__)

_WEIGHTS = "weights"


def run(workspace: Workspace) -> None:
    """Trains the predictor and writes it, unless a fresh one is there.

    Raises:
        ValueError: the data set, the encoder or the datastore is missing or stale.
    """
    if workspace.is_fresh("fit"):
        logger.info("fit: %s is up to date", workspace.stage_dir("fit"))
        return
    dataset = open_dataset(workspace)
    config = workspace.config
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    strategy = build_strategy(config.training)
    tf.keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_predictor(dataset, read_datastore(workspace, dataset), spec)
        read_encoder_into(model, dataset, workspace.stage_dir("pretrain"))
        model.compile(optimizer=tf.keras.optimizers.Adam(_learning_rate(dataset)))
    section = config.training

    def read(split: str, seed: int | None = None) -> tf.data.Dataset:
        return read_examples(dataset, split, spec, section.batch_size, seed)

    train_frozen, validation_frozen = (
        find_frozen_features(model, read(split), len(dataset.log), split) for split in ("train", "validation")
    )
    validation = _join(read("validation").cache(), validation_frozen)

    def read_train(epoch: int) -> tf.data.Dataset:
        return _join(read("train", config.seed * 1000 + epoch), train_frozen)

    model.adapt(read("train"))
    loss = "listwise_loss" if section.loss == "listwise" else "log_loss"

    def validate() -> dict[str, float]:
        metrics = model.evaluate(validation, verbose=0, return_dict=True)
        return {"loss": metrics[loss], "auc": metrics["auc"]}

    with workspace.training("fit", worker_index(config.training)) as progress:
        history = train_epochs(
            "fit",
            model,
            read_train,
            validate,
            Schedule.of_falling_rate(section.num_epochs, section.patience, section.learning_rate_decay),
            progress.folder,
            progress.resume_from,
        )
        if section.loss == "listwise":
            _calibrate(model, validation)
        with progress.finish({"epochs": len(history["loss"])}) as folder:
            tf.train.Checkpoint(model=model).write(str(folder / _WEIGHTS))
            (folder / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")


def _join(slates: tf.data.Dataset, frozen: FrozenFeatures | None) -> tf.data.Dataset:
    """Batches with the features that are known of them."""
    return slates if frozen is None else slates.map(frozen.join).prefetch(tf.data.AUTOTUNE)


def _learning_rate(dataset: Dataset) -> float | tf.keras.optimizers.schedules.LearningRateSchedule:
    section = dataset.config.training
    return build_learning_rate(
        section.learning_rate,
        section.learning_rate_decay,
        num_epochs=section.num_epochs,
        num_examples=dataset.num_examples("train"),
        batch_size=section.batch_size,
    )


def _calibrate(model: Predictor, slates: tf.data.Dataset) -> None:
    """Platt's scaling on validation: a listwise loss learns an order and no probabilities."""

    @tf.function(reduce_retracing=True)
    def predict(slate: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.boolean_mask(model(slate, training=False).logits, slate["mask"])

    logits = np.concatenate([predict(slate).numpy() for slate in slates]).astype(np.float64)
    labels = np.concatenate([slate["label"].numpy()[slate["mask"].numpy()] for slate in slates])
    slope, intercept = fit_platt(logits, labels)
    if slope > 0.0:
        model.calibrate(slope, intercept)
    else:
        logger.warning("fit: validation does not rank positives above negatives; probabilities are not calibrated.")


def build_predictor(
    dataset: Dataset, datastore: Datastore, spec: ExampleSpec, situation: SituationGraphs | None = None
) -> Predictor:
    """Builds the predictor, with its variables.

    Args:
        dataset: the data set.
        datastore: the log with its states.
        spec: the examples' definition.
        situation: the tables that `[situation]` and `predictor.recency_days` ask for; None: constants, made of the data set.
    """
    config = dataset.config
    if situation is None:
        situation = build_situation_graphs(dataset, datastore)
    pretrainer = build_pretrainer(dataset, datastore)
    encoder, head, prior = pretrainer.encoder, pretrainer.head, positive_rate(dataset)
    model = Predictor(config, dataset.info, encoder, head, datastore, prior, situation, pretrainer.next_item)
    model(dataset.row_references.resolve(spec.parse(tf.constant([_empty_example(spec)]))))
    return model


def read_predictor(
    workspace: Workspace,
    dataset: Dataset,
    datastore: Datastore,
    spec: ExampleSpec,
    situation: SituationGraphs | None = None,
) -> Predictor:
    """The trained predictor; the arguments are those of `build_predictor`.

    Raises:
        ValueError: it is missing or stale.
    """
    workspace.check_fresh("fit")
    model = build_predictor(dataset, datastore, spec, situation)
    read_predictor_weights(model, workspace.stage_dir("fit"))
    return model


def read_predictor_weights(model: Predictor, folder: Path) -> None:
    """Reads the weights that `run` wrote into a built model."""
    status = tf.train.Checkpoint(model=model).read(str(folder / _WEIGHTS))
    status.assert_existing_objects_matched().expect_partial()  # the optimizer is of no more use


def read_encoder_into(model: Predictor, dataset: Dataset, folder: Path) -> None:
    """Reads the pretrained encoder into a predictor, and starts the predictor's embeddings from its own if configured."""
    pretrainer = build_pretrainer(dataset, model.datastore)
    read_encoder(pretrainer, folder)
    model.encoder.set_weights(pretrainer.encoder.get_weights())
    model.head.set_weights(pretrainer.head.get_weights())
    if model.next_item is not None and pretrainer.next_item is not None:
        model.next_item.set_weights(pretrainer.next_item.get_weights())
    switches, trained = dataset.config.predictor, dataset.config.pretrained_indices
    if switches.initial_embeddings == "pretrained":
        model.embedding.copy_known(pretrainer.encoder.embedding)
        if switches.freeze_embeddings and trained is not None:  # fields that nothing has trained and nothing will
            model.embedding.clear(set(range(len(dataset.config.schema))) - set(trained))


def positive_rate(dataset: Dataset) -> float:
    """The share of positives in the pool before train."""
    return float(np.mean(dataset.positive[dataset.log.time < dataset.info.boundaries.train_from]))


def _empty_example(spec: ExampleSpec) -> bytes:
    """A slate of one unknown candidate without neighbours, to build variables with."""
    shape = (1, spec.num_neighbours)
    return spec.serialize(
        {
            "time": np.zeros(1, np.int64),
            "rank": np.full(1, NO_RANK),
            "history_rank": np.full(1, NO_RANK),
            "fields": np.ones((1, len(spec.field_names)), np.int32),
            "label": np.zeros(1, np.int64),
            "neighbour_ranks": np.full(shape, NO_RANK),
            "neighbour_scores": np.zeros(shape),
            "neighbour_num_future": np.zeros(shape, np.int32),
            "match_counts": np.zeros((1, spec.num_statistics), np.int32),
            "match_positives": np.zeros((1, spec.num_statistics), np.int32),
        }
    )
