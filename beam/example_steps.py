"""Steps from the finished log to posting lists, pretraining windows and examples."""

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import SPLITS, Boundaries, read_dataset_info
from tf_lift.data.windows import write_windows as write_window_file
from tf_lift.retrieval.posting_lists import build_set_postings, pool_order, write_set_postings

from . import build_examples
from .pipeline_inputs import PipelineInputs, write_fact_file


def list_match_sets(_: None, inputs: PipelineInputs, boundaries: Boundaries, log: Mapping[str, int]) -> Iterator[int]:
    """Writes the pool's order and numbers the match sets, once the log stands (`log`, which is only waited for)."""
    del log
    dataset = _open(inputs, boundaries)
    rows = _pool_rows(dataset)
    if not len(rows):
        raise ValueError("The retrieval pool must hold interactions. Received: none before split.train_from.")
    folder = inputs.dataset_dir / "posting_lists"
    np.save(folder / "rank_to_row.npy", rows.astype(np.int32))
    np.save(folder / "rank_to_time.npy", dataset.log.time[rows])
    yield from range(len(dataset.info.match_sets))


def write_posting_lists(set_index: int, inputs: PipelineInputs, boundaries: Boundaries) -> dict[str, int]:
    """Writes the posting lists of one match set."""
    dataset = _open(inputs, boundaries)
    rows = _pool_rows(dataset)
    keys = dataset.info.match_sets.keys(dataset.log.fields[rows], set_index)
    postings = build_set_postings(keys, np.arange(len(rows), dtype=np.int32), dataset.positive[rows])
    write_set_postings(postings, inputs.dataset_dir / "posting_lists" / f"set-{set_index:03d}")
    return {"match_sets": 1, "posting_keys": len(postings.keys), "posting_entries": len(postings.ranks)}


def write_windows(_: None, inputs: PipelineInputs, boundaries: Boundaries, log: Mapping[str, int]) -> None:
    """Writes the pretraining windows, once the log stands."""
    del log
    first, count = build_examples.find_windows(_open(inputs, boundaries))
    write_window_file(inputs.dataset_dir / "windows.tfrecord", first, count)
    write_fact_file(inputs, "windows", {"pretraining_windows": len(first)})


def list_target_batches(
    _: None, inputs: PipelineInputs, boundaries: Boundaries, postings: Mapping[str, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Picks the targets and cuts them into batches, once the posting lists stand."""
    del postings
    targets = build_examples.find_target_rows(_open(inputs, boundaries))
    write_fact_file(inputs, "targets", targets.counts)
    size = inputs.config.pipeline.targets_per_batch
    for first in range(0, len(targets.rows), size):
        yield targets.rows[first : first + size], targets.splits[first : first + size]


def build_slates(
    batch: tuple[np.ndarray, np.ndarray], inputs: PipelineInputs, boundaries: Boundaries
) -> Iterator[tuple[tuple[int, int], tuple[np.ndarray, list[bytes], int]]]:
    """The serialized examples of a batch of targets, by split and file, with their places in it and number of candidates."""
    rows, splits = batch
    builder = _open_builder(inputs, boundaries)
    serialized: list[bytes] = []
    num_candidates = np.zeros(len(rows), np.int64)
    for index, slate in enumerate(builder.build(rows)):
        serialized.append(builder.spec.serialize(slate))
        num_candidates[index] = len(slate["label"])
    files, keys = build_examples.example_key(rows, inputs.config)
    for split, file in np.unique(np.stack([splits, files], axis=1), axis=0).tolist():
        chosen = np.flatnonzero((splits == split) & (files == file))
        yield (split, file), (keys[chosen], [serialized[index] for index in chosen], int(num_candidates[chosen].sum()))
    (inputs.facts_dir / f"targets-{int(rows[0])}.done").write_text(str(len(rows)), encoding="utf-8")


def write_examples(
    file_and_parts: tuple[tuple[int, int], Iterable[tuple[np.ndarray, list[bytes], int]]], inputs: PipelineInputs
) -> dict[str, int]:
    """Writes one TFRecord file of examples, in the order of their keys."""
    (split, file), parts = file_and_parts
    parts = list(parts)
    keys = np.concatenate([part[0] for part in parts])
    examples = [example for part in parts for example in part[1]]
    name = SPLITS[split - 1]
    path = (
        inputs.dataset_dir / "examples" / f"{name}-{file:05d}-of-{inputs.config.pipeline.example_shards:05d}.tfrecord"
    )
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in np.argsort(keys):
            writer.write(examples[index])
    return {f"{name}_examples": len(examples), f"{name}_candidates": sum(part[2] for part in parts)}


def _pool_rows(dataset: Dataset) -> np.ndarray:
    """The pool's row ids, oldest first: all of them in rolling mode, those before train in static mode."""
    config, log = dataset.config, dataset.log
    if config.split.mode == "rolling":
        return pool_order(log.time, np.arange(len(log)), np.zeros(len(log), bool))
    rows = np.flatnonzero(log.time < dataset.info.boundaries.train_from)
    stops = log.rows_before(
        log.fields[rows, config.schema.user_index], np.full(len(rows), dataset.info.boundaries.train_from)
    )
    preferred = stops - rows - 1 >= config.retrieval.min_future
    return rows[pool_order(log.time[rows], rows, preferred)]


# A worker reads the log and the posting lists once a run; threads of one process share them.
_opened: dict[str, Dataset] = {}
_builders: dict[str, build_examples.ExampleBuilder] = {}
_lock = threading.Lock()


def _open(inputs: PipelineInputs, boundaries: Boundaries) -> Dataset:
    with _lock:
        if inputs.run_token not in _opened:
            _opened.clear()
            _builders.clear()
            facts = {"boundaries": dataclasses.asdict(boundaries)}
            info = read_dataset_info(inputs.dataset_dir, inputs.config, facts)
            _opened[inputs.run_token] = Dataset(inputs.config, inputs.dataset_dir, info)
        return _opened[inputs.run_token]


def _open_builder(inputs: PipelineInputs, boundaries: Boundaries) -> build_examples.ExampleBuilder:
    dataset = _open(inputs, boundaries)
    with _lock:
        if inputs.run_token not in _builders:
            _builders[inputs.run_token] = build_examples.ExampleBuilder(dataset)
        return _builders[inputs.run_token]


def forget_run(run_token: str) -> None:
    """Frees what a run in this process has read."""
    with _lock:
        _opened.pop(run_token, None)
        _builders.pop(run_token, None)
