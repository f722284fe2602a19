"""Warm-up requests: a server sends them to itself before a version takes traffic, so that no user waits for first allocations."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, prediction_log_pb2

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.raw_requests import build_history

from .request_examples import build_request_examples

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_NUM_PAIRS = 10  # of a Classify or a Regress request


def write_warmup(dataset: Dataset, folder: Path, model_name: str) -> None:
    """Writes requests for every signature, and for every number of candidates in `export.warmup_slates`.

    Args:
        dataset: the data set.
        folder: the version's folder.
        model_name: the model's name in the requests.
    """
    (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for log in build_warmup(dataset, model_name):
            writer.write(log.SerializeToString(deterministic=True))


def build_warmup(dataset: Dataset, model_name: str) -> Iterator[prediction_log_pb2.PredictionLog]:
    """Yields the requests: the user of the log's last interaction asks just after it for items of the vocabulary."""
    for num_candidates in dataset.config.export.warmup_slates:
        request = _build_request(dataset, num_candidates)
        position = dataset.log.positions_of_rows(*_last_row(dataset)) + 1
        history = build_history(dataset, position, dataset.config.retrieval.context_length)
        for signature, inputs in (
            ("rank_known_user", request),
            ("rank", {**request, **history}),
            ("explain", request),
        ):
            yield _predict(_spec(model_name, signature), inputs)
    paths = sorted(tf.io.gfile.glob(dataset.example_pattern("test")))
    serialized = list(tf.data.TFRecordDataset(paths).take(1).as_numpy_iterator())
    yield _predict(_spec(model_name, "serving_default"), {"examples": np.array(serialized, object)})
    pairs = build_request_examples(_build_request(dataset, 1), dataset.config.schema) * _NUM_PAIRS
    examples = [tf.train.Example.FromString(pair) for pair in pairs]
    log = prediction_log_pb2.PredictionLog()
    log.classify_log.request.model_spec.CopyFrom(_spec(model_name, "classify"))
    log.classify_log.request.input.example_list.examples.extend(examples)
    yield log
    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.model_spec.CopyFrom(_spec(model_name, "regress"))
    log.regress_log.request.input.example_list.examples.extend(examples)
    yield log


def _last_row(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The row id of the log's last interaction, and its user's index: [1] each."""
    row = dataset.log.time_order[-1:].astype(np.int64)
    return row, np.searchsorted(dataset.log.user_starts, row, side="right") - 1


def _build_request(dataset: Dataset, num_candidates: int) -> dict[str, np.ndarray]:
    schema, vocabularies, log = dataset.config.schema, dataset.info.vocabularies, dataset.log
    row, _ = _last_row(dataset)
    items = np.resize(np.array(vocabularies[schema.item_index].values, object), (1, num_candidates))
    indices = {"user": schema.user_index, **{schema.names[index]: index for index in schema.indices("context")}}
    own = {name: [vocabularies[index].value(int(log.fields[row[0], index]))] for name, index in indices.items()}
    request = {name: np.array(values, object) for name, values in own.items()}
    return {**request, "candidates": items, "time": log.time[row] + 1}


def _spec(model_name: str, signature: str) -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name=model_name, signature_name=signature)


def _predict(spec: model_pb2.ModelSpec, inputs: Mapping[str, np.ndarray]) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.CopyFrom(spec)
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return log
