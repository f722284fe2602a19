"""What one would build otherwise: a Python service that retrieves with tantivy and answers with the model's tf.Example."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from benchmarks.retrieval.data import DataSet, DataSpec, Rows
from benchmarks.retrieval.engines import Tantivy
from benchmarks.serving.load_client import BUILD_EXAMPLE
from benchmarks.serving.worker import serve_jobs
from tf_lift.config import load_config
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import NO_RANK, build_example_spec
from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID
from tf_lift.workspace import Workspace

_NUM_THREADS = 40  # more than there are clients


class RetrievalService:
    """Builds slates as tf.Examples: the K nearest of the whole log for each candidate, by tantivy.

    Differences from the project's own examples, all of which spare this service work: it has no as-of times, so requests must
    be at the end of the log, and the match statistics are zero, for tantivy has none.

    Args:
        dataset: the data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, schema, log = dataset, dataset.config.schema, dataset.log
        self._ids = {
            vocabulary.name: {value: index for index, value in enumerate(vocabulary.values, start=FIRST_VALUE_ID)}
            for vocabulary in dataset.info.vocabularies
        }
        self._spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
        self._user_indices = log.user_indices()
        self._context = [(schema.names[index], index) for index in schema.indices("context")]
        self._names = [schema.names[index] for index in (schema.user_index, schema.item_index)]
        num_ids = tuple(vocabulary.num_ids for vocabulary in dataset.info.vocabularies)
        empty = np.empty(0)
        pool = Rows(log.fields[log.time_order], empty, empty, empty)  # a row's number is its time rank
        self._engine = Tantivy()
        self._engine.build(DataSet(pool, pool, num_ids, {}), DataSpec("log", "synthetic"), self._spec.num_neighbours)

    def build_example(self, data: bytes) -> bytes:
        """From a serialized request of `rank_known_user`, of one user and values of the log, to a serialized tf.Example."""
        request = predict_pb2.PredictRequest.FromString(data)
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        fields, time = self._find_fields(inputs), inputs["time"]
        empty = np.empty(0)
        prepared = self._engine.prepare(Rows(fields, empty, empty, empty))
        found = self._engine.decode(self._engine.answer(prepared))
        log, length = self._dataset.log, self._dataset.config.retrieval.context_length
        rows = log.time_order[np.maximum(found.rows, 0)]
        times = np.full(rows.size, time[0])
        following = log.num_visible_future(rows.ravel(), self._user_indices[rows.ravel()], times, length)
        history = log.last_rows_before(fields[:1, self._dataset.config.schema.user_index], time)
        statistics = np.zeros((len(fields), self._spec.num_statistics), np.int32)
        return self._spec.serialize(
            {
                "fields": fields,
                "time": time,
                "rank": np.array(NO_RANK),
                "history_rank": np.where(history < 0, NO_RANK, log.time_ranks[np.maximum(history, 0)]),
                "label": np.zeros(len(fields), np.int64),
                "neighbour_ranks": found.rows,
                "neighbour_scores": found.scores,
                "neighbour_num_future": np.where(found.rows < 0, 0, following.reshape(rows.shape)),
                "match_counts": statistics,
                "match_positives": statistics,
            }
        )

    def _find_fields(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """int32 [C, M] ids."""
        user_name, item_name = self._names
        entities = self._dataset.info.entity_fields
        items = np.array([self._ids[item_name][value.decode()] for value in inputs["candidates"][0]])
        user = self._ids[user_name][inputs["user"][0].decode()]
        fields = entities["item"][items - FIRST_VALUE_ID] + entities["user"][user - FIRST_VALUE_ID]
        for name, index in self._context:
            fields[:, index] = self._ids[name].get(inputs[name][0].decode(), PADDING_ID)  # "" where the log has none
        return fields


def prepare(config: str, overrides: Sequence[str]) -> tuple[Callable[..., dict[str, Any]], dict[str, Any]]:
    """Builds the index and starts the service; returns a job that stops it, the `port` and the `build_seconds`."""
    dataset = open_dataset(Workspace(load_config(config, overrides)))
    began = time.perf_counter()
    service = RetrievalService(dataset)
    build_seconds = time.perf_counter() - began
    server = grpc.server(futures.ThreadPoolExecutor(_NUM_THREADS))
    _, package, method = BUILD_EXAMPLE.split("/")
    handler = grpc.unary_unary_rpc_method_handler(lambda data, _: service.build_example(data))
    server.add_registered_method_handlers(package, {method: handler})
    port = server.add_insecure_port("localhost:0")
    server.start()

    def stop() -> dict[str, Any]:
        server.stop(grace=None).wait()
        return {}

    return stop, {"port": port, "build_seconds": build_seconds}


if __name__ == "__main__":
    serve_jobs(prepare)
