"""Requests of real users for real items, as serialized PredictRequests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.ranking_messages import RANK_SIGNATURE
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.raw_requests import build_history


class Slates:
    """Draws requests: users of the log's newest tenth ask just after its end for items by their popularity.

    Args:
        dataset: the data set.
        model_name: the model's name in the requests.
        seed: of all draws.
    """

    _NEWEST_SHARE = 0.1

    def __init__(self, dataset: Dataset, model_name: str, seed: int) -> None:
        self._dataset, self._model_name, self._seed = dataset, model_name, seed
        log, schema, vocabularies = dataset.log, dataset.config.schema, dataset.info.vocabularies
        self._newest = log.time_order[-max(1, int(self._NEWEST_SHARE * len(log))) :]
        self._items, counts = np.unique(log.fields[:, schema.item_index], return_counts=True)
        self._popularity = counts / counts.sum()
        self._item_names = np.array([vocabularies[schema.item_index].value(int(item)) for item in self._items], object)

    def build(self, signature: str, num_candidates: int, num_requests: int, batch_size: int = 1) -> list[bytes]:
        """Builds requests: the same for the same arguments.

        Args:
            signature: `rank_known_user` or `rank`, whose history is the user's last L rows of the log.
            num_candidates: C, each another item where there are so many.
            num_requests: how many.
            batch_size: B, slates of each.
        """
        rng = np.random.default_rng((self._seed, num_candidates, batch_size))
        return [self._build_one(rng, signature, num_candidates, batch_size) for _ in range(num_requests)]

    def _build_one(self, rng: np.random.Generator, signature: str, num_candidates: int, batch_size: int) -> bytes:
        dataset, log, schema = self._dataset, self._dataset.log, self._dataset.config.schema
        rows = rng.choice(self._newest, batch_size)
        times = np.full(batch_size, log.times_in_order[-1] + 1)
        inputs = {
            "candidates": np.stack([self._draw_items(rng, num_candidates) for _ in range(batch_size)]),
            "time": times,
            "user": self._values(schema.user_index, rows),
            **{schema.names[index]: self._values(index, rows) for index in schema.indices("context")},
        }
        if signature == RANK_SIGNATURE:
            positions = log.positions_at(log.fields[rows, schema.user_index], times)
            inputs |= build_history(dataset, positions, dataset.config.retrieval.context_length)
        return build_request(self._model_name, signature, inputs).SerializeToString(deterministic=True)

    def _draw_items(self, rng: np.random.Generator, count: int) -> np.ndarray:
        is_short = count > len(self._items)
        return self._item_names[rng.choice(len(self._items), count, replace=is_short, p=self._popularity)]

    def _values(self, field: int, rows: np.ndarray) -> np.ndarray:
        vocabulary = self._dataset.info.vocabularies[field]
        return np.array([vocabulary.value(int(value)) for value in self._dataset.log.fields[rows, field]], object)

    def read_examples(self, num_examples: int) -> list[bytes]:
        """Serialized tf.Examples of the test split, as `serving_default` takes them."""
        paths: Sequence[str] = sorted(tf.io.gfile.glob(self._dataset.example_pattern("test")))
        return list(tf.data.TFRecordDataset(paths).take(num_examples).as_numpy_iterator())


def build_request(model_name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
    """A request for the probabilities of a signature."""
    request = predict_pb2.PredictRequest(output_filter=["probabilities"])
    request.model_spec.name, request.model_spec.signature_name = model_name, signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request
