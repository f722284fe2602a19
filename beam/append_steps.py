"""Steps that take a data set further: what new interactions leave as it was is read from the previous one, not made again.

All new interactions must be later than all that are there. Then ids, time ranks, the rows that a target may see and so its
example's bytes stay; row ids, the split and the files' order do not, and are merged.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from tf_lift.data.log_files import read_log
from tf_lift.retrieval.posting_files import PartKey, list_parts
from tf_lift.retrieval.set_postings import SetPostings, read_set_postings
from tf_lift.schema import FIRST_VALUE_ID, Entity
from tf_lift.vocabulary import read_vocabulary

from .build_examples import example_key
from .example_block import ExampleBlock, build_example_block
from .interaction_batch import EncodedBatch, FirstSeen, InteractionBatch
from .parse_rows import Rejected
from .parse_steps import JoinedTable
from .pipeline_inputs import PipelineInputs
from .posting_steps import HotKeys, Keyed, hot_threshold, route_keys

_EXAMPLES_AT_ONCE = 4096


def read_counts(_: None, inputs: PipelineInputs) -> dict[str, int]:
    """What was read of the previous files."""
    return {
        name: count
        for name, count in inputs.base.counts.items()
        if name in ("read", "kept", "rejected") or name.startswith("left_out")
    }


def read_rejected(_: None, inputs: PipelineInputs) -> Iterator[tuple[str, list[Rejected]]]:
    """The rejected rows of the previous files of the log, by file."""
    folder = inputs.base.folder
    for place, path in enumerate(path for path in inputs.log_paths if path not in inputs.new_paths):
        for name in folder.list(f"rejected/{place:05d}-*.tsv"):
            rows = []
            for line in folder.fetch(name).read_text(encoding="utf-8").split("\n")[:-1]:
                number, reason, text = line.split("\t", 2)
                rows.append(Rejected(path, int(number), reason, text))
            yield path, rows


def read_first_seen(field: int, inputs: PipelineInputs) -> tuple[int, FirstSeen]:
    """A field's previous vocabulary."""
    return field, FirstSeen(*_read_values(inputs, inputs.config.schema.names[field]))


def list_log_shards(_: None, inputs: PipelineInputs) -> Iterator[str]:
    """Names of the previous log's shards."""
    yield from inputs.base.folder.list("interactions-*.tfrecord")


def read_log_shard(name: str, inputs: PipelineInputs) -> Iterator[EncodedBatch]:
    """The rows of a shard, in the order of their numbers: they stand before all new rows of their users, and keep their order."""
    log = read_log([inputs.base.folder.fetch(name)], len(inputs.config.schema))
    for first in range(0, len(log), inputs.config.pipeline.rows_per_batch):
        part = slice(first, min(first + inputs.config.pipeline.rows_per_batch, len(log)))
        before = np.full(part.stop - first, -1, np.int32)
        yield EncodedBatch(
            log.fields[part], log.time[part], log.behaviour[part], before, np.arange(first, part.stop, dtype=np.int64)
        )


def read_conflicts(_: None, inputs: PipelineInputs) -> dict[str, int]:
    """How many previous rows had attributes that were not their entity's: settled rows do not tell any more."""
    return {"rows": 0, "synthetic": 0, "conflicts": inputs.base.counts["conflicts"]}


def check_later(
    batch: InteractionBatch, inputs: PipelineInputs, previous: tuple[np.ndarray, np.ndarray]
) -> InteractionBatch:
    """Passes on new interactions that are later than all previous ones.

    Raises:
        ValueError: one is not.
    """
    last, first = int(previous[0][-1]), int(batch.time.min())
    if first <= last:
        raise ValueError(
            f"Appended interactions must be later than all that the data set has. Received: one at {first} in "
            f"{inputs.log_paths[int(batch.file_index[np.argmin(batch.time)])]}, where the data set ends at {last} (epoch seconds). Run "
            "`python -m beam.preprocess` without --append, which reads all files."
        )
    return batch


def check_table(table: JoinedTable, inputs: PipelineInputs, index: int) -> None:
    """Checks that an attribute table still says of previous users or items what it said.

    Raises:
        ValueError: an attribute of one changed, or rows were left out for lack of an entity that the table may have now.
    """
    spec, names, schema = inputs.config.source.attributes[index], inputs.columns.attributes[index], inputs.config.schema
    if spec.required and any(
        count and name.endswith(f" not in {os.path.basename(spec.paths[0])}")
        for name, count in inputs.base.counts.items()
    ):
        raise ValueError(
            f"Appending needs that no previous interaction was left out for lack of its {spec.entity} in {spec.paths[0]}, as the table "
            "may have it now. Received: some that were. Run `python -m beam.preprocess` without --append."
        )
    key = schema.user_index if spec.entity == "user" else schema.item_index
    previous = np.load(inputs.base.folder.fetch(f"{spec.entity}s.npy"))
    entities, _ = _read_values(inputs, schema.names[key])
    vocabularies = [_read_values(inputs, name)[0] for name in names]
    columns = [schema.names.index(name) for name in names]
    empty = ("",) * len(names)
    for row, entity in enumerate(entities[: len(previous)]):
        now = table.values.get(entity, empty)
        before = [
            values[id_ - FIRST_VALUE_ID] if id_ >= FIRST_VALUE_ID else ""
            for values, id_ in zip(vocabularies, previous[row, columns].tolist(), strict=True)
        ]
        if list(now) != before:
            raise ValueError(
                f"Appending must leave the attributes of what is there as they were. Received: {spec.entity} {entity!r} with {before} "
                f"before and {list(now)} now in {spec.paths[0]}. Run `python -m beam.preprocess` without --append."
            )


def _read_values(inputs: PipelineInputs, name: str) -> tuple[tuple[str, ...], np.ndarray]:
    vocabulary = read_vocabulary(inputs.base.folder.fetch(f"vocabulary/{name}.tsv"))
    return tuple(vocabulary.values), vocabulary.first_times


def read_conflicting_entities(entity: Entity, inputs: PipelineInputs) -> tuple[Entity, np.ndarray]:
    """Ids of the previous users or items that had several values of an attribute."""
    return entity, np.load(inputs.base.folder.fetch(f"{entity}s_conflicting.npy"))


def list_previous_parts(_: None, inputs: PipelineInputs) -> Iterator[tuple[int, int, int, int]]:
    """The parts of the previous posting lists."""
    folder = inputs.base.folder.fetch_matching("posting_lists/*.npz")
    yield from (dataclasses.astuple(key) for key in list_parts(folder))


def find_previous_hot_keys(
    key: tuple[int, int, int, int], inputs: PipelineInputs, log: Mapping[str, int]
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """As `posting_steps.find_hot_keys`, for the slices without new rows: that one counts the rest by the log."""
    if log["rows"] < inputs.config.pipeline.hot_key_rows:
        return
    size = inputs.config.pipeline.pool_slice_rows
    postings = cut_ranks(read_previous_part(key, inputs), 0, inputs.first_new_slice * size)
    threshold = hot_threshold(inputs, log["rows"])
    many = postings.select(postings.counts >= threshold)
    if not len(many.counts):
        return
    keys = np.repeat(np.arange(len(many.lengths)), many.lengths)
    pairs, counts = np.unique(np.stack([keys, many.ranks // size]), axis=1, return_counts=True)
    hot = counts >= threshold
    if hot.any():
        yield key[0], (many.values[pairs[0][hot]], counts[hot].astype(np.int32))


def read_pieces(key: tuple[int, int, int, int], inputs: PipelineInputs, hot_keys: HotKeys) -> Iterator[Keyed]:
    """The previous lists of a part, by slice for keys that are hot now. They come before what is new."""
    postings, size = read_previous_part(key, inputs), inputs.config.pipeline.pool_slice_rows
    hot = np.zeros(len(postings.values), bool)
    for values in hot_keys.get(key[0], ()):
        hot |= (postings.values == values).all(axis=1)
    for route, chosen in route_keys(key[0], postings.values[~hot], inputs, {}, 0):
        yield route, (-1, postings.select(~hot).select(chosen))
    rest = postings.select(hot)
    for slice_index in np.unique(rest.ranks // size).tolist():
        piece = cut_ranks(rest, slice_index * size, (slice_index + 1) * size)
        for route, chosen in route_keys(key[0], piece.values, inputs, hot_keys, slice_index):
            yield route, (-1, piece.select(chosen))


def read_previous_part(key: tuple[int, int, int, int], inputs: PipelineInputs) -> SetPostings:
    """The previous lists of a part."""
    return read_set_postings(inputs.base.folder.fetch(PartKey(*key).name))


def cut_ranks(postings: SetPostings, first: int, stop: int) -> SetPostings:
    """The lists' rows of a range of ranks; rolling mode, where all rows are listed. Keys without any are left out."""
    keys = np.repeat(np.arange(len(postings.lengths)), postings.lengths)
    kept = (postings.ranks >= first) & (postings.ranks < stop)
    lengths = np.bincount(keys[kept], minlength=len(postings.lengths)).astype(np.int32)
    positives = np.bincount(keys[kept], weights=postings.positive[kept], minlength=len(lengths)).astype(np.int32)
    users = postings.users[kept] if len(postings.users) else postings.users
    whole = SetPostings(
        postings.values, lengths, positives, lengths, postings.ranks[kept], postings.positive[kept], users
    )
    return whole.select(lengths > 0)


def list_example_files(_: None, inputs: PipelineInputs) -> Iterator[str]:
    """The previous examples' files."""
    yield from inputs.base.folder.list("examples/*.tfrecord")


def read_examples(
    name: str, inputs: PipelineInputs, kept: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[tuple[int, int], ExampleBlock]]:
    """The previous examples whose targets still are targets, as `example_steps.build_slates` gives them.

    Args:
        name: one of the files.
        inputs: the pipeline's.
        kept: time ranks and split numbers of the targets that have an example already.
    """
    records = tf.data.TFRecordDataset(str(inputs.base.folder.fetch(name))).batch(_EXAMPLES_AT_ONCE)
    item = inputs.config.schema.names[inputs.config.schema.item_index]
    spec = {"rank": tf.io.FixedLenFeature([], tf.int64), f"field/{item}": tf.io.VarLenFeature(tf.int64)}
    ranks_kept, splits_kept = kept
    for batch in records:
        parsed = tf.io.parse_example(batch, spec)
        ranks = parsed["rank"].numpy()
        num_candidates = np.bincount(parsed[f"field/{item}"].indices.numpy()[:, 0], minlength=len(ranks))
        files, keys = example_key(ranks, inputs.config)
        place = np.searchsorted(ranks_kept, ranks)
        found = np.append(ranks_kept, -1)[place] == ranks
        splits = np.zeros(len(ranks), np.int64)
        splits[found] = splits_kept[place[found]]
        serialized = batch.numpy()
        for split, file in np.unique(np.stack([splits[found], files[found]], axis=1), axis=0).tolist():
            chosen = np.flatnonzero(found & (splits == split) & (files == file))
            examples = [serialized[index] for index in chosen]
            block = build_example_block(keys[chosen], examples, int(num_candidates[chosen].sum()))
            yield (int(split), int(file)), block
