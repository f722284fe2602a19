"""From encoded batches to the shards of the interaction log."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tf_lift.config import Config
from tf_lift.data.dataset_info import Boundaries
from tf_lift.data.log_files import write_log_shard
from tf_lift.schema import FIRST_VALUE_ID, Entity, Schema

from .draw_negatives import draw_pool_negatives
from .hashing import draw
from .interaction_batch import EncodedBatch

_PAIR_ORDER = 100  # purpose of the draw that orders a pool row and its negative


def shard_of_users(user_indices: np.ndarray, num_users: int, num_shards: int) -> np.ndarray:
    """The shard of each user: consecutive users share one."""
    return user_indices.astype(np.int64) * num_shards // max(num_users, 1)


def split_by_shard(
    batch: EncodedBatch, user_field: int, num_users: int, num_shards: int
) -> Iterable[tuple[int, EncodedBatch]]:
    """The part of a batch that goes to each shard of the log."""
    shards = shard_of_users(batch.fields[:, user_field] - FIRST_VALUE_ID, num_users, num_shards)
    for shard in np.unique(shards):
        rows = shards == shard
        yield int(shard), EncodedBatch(*(values[rows] for values in _arrays(batch)))


def write_shard(
    shard: int,
    batches: Iterable[EncodedBatch],
    config: Config,
    boundaries: Boundaries,
    entity_tables: Mapping[Entity, np.ndarray],
    path: Path,
) -> dict[str, int]:
    """Sorts the rows of a shard's users by (user, time, input order), adds the pool's negatives, and writes them.

    Args:
        shard: number of the shard.
        batches: its rows, in any order.
        config: the configuration.
        boundaries: the split.
        entity_tables: for "user" and "item", int32 [U or I, M] the fields that the entity determines.
        path: where to write.

    Returns:
        Counts: `rows`, of which `synthetic`; and `conflicts`, rows whose attribute differed from its entity's.
    """
    schema = config.schema
    parts = [_arrays(batch) for batch in batches]
    fields, time, behaviour, file_index, line = (np.concatenate([part[index] for part in parts]) for index in range(5))
    fields, num_conflicts = _settle_attributes(fields, config.schema, entity_tables)
    users = fields[:, schema.user_index]
    order = np.lexsort((line, file_index, time, users))
    columns = {"fields": fields[order], "time": time[order], "behaviour": behaviour[order]}
    columns["synthetic"] = np.zeros(len(order), bool)
    if config.negatives.logged_per_pool_row:
        columns = _add_negatives(columns, config, boundaries, entity_tables["item"])
    num_users = len(entity_tables["user"])
    all_users = np.arange(num_users)
    members = all_users[shard_of_users(all_users, num_users, config.pipeline.num_shards) == shard]
    indices = columns["fields"][:, schema.user_index] - FIRST_VALUE_ID - (members[0] if len(members) else 0)
    write_log_shard(path, columns, np.bincount(indices, minlength=len(members)))
    return {"rows": len(columns["time"]), "synthetic": int(columns["synthetic"].sum()), "conflicts": num_conflicts}


def _settle_attributes(
    fields: np.ndarray, schema: Schema, entity_tables: Mapping[Entity, np.ndarray]
) -> tuple[np.ndarray, int]:
    """Gives every row its user's and its item's attributes, and counts the rows where the log said otherwise."""
    settled = fields.copy()
    for entity, table in entity_tables.items():
        key = next(index for index in schema.indices(entity) if schema.fields[index].key)
        columns = list(schema.indices(entity))
        settled[:, columns] = table[fields[:, key] - FIRST_VALUE_ID][:, columns]
    return settled, int((settled != fields).any(axis=1).sum())


def _add_negatives(
    columns: dict[str, np.ndarray], config: Config, boundaries: Boundaries, item_table: np.ndarray
) -> dict[str, np.ndarray]:
    """Adds `per_pool_row` negatives at the time of each pool row, before or after it by a draw: order must tell nothing."""
    schema, seed = config.schema, config.data_seed
    users = columns["fields"][:, schema.user_index]
    _, first, counts = np.unique(users, return_index=True, return_counts=True)
    sequence = np.arange(len(users)) - np.repeat(first, counts)
    pool = np.flatnonzero(columns["time"] < boundaries.train_from)
    parts, keys = [columns], [draw(seed, _PAIR_ORDER, users, sequence)]
    order = [sequence]
    item_fields = list(schema.indices("item"))
    for copy in range(config.negatives.logged_per_pool_row):
        negative = {name: values[pool] for name, values in columns.items()}
        items = draw_pool_negatives(
            users[pool], sequence[pool], negative["fields"][:, schema.item_index], len(item_table), seed + copy
        )
        negative["fields"][:, item_fields] = item_table[items - FIRST_VALUE_ID][:, item_fields]
        negative["behaviour"] = np.zeros(len(pool), np.int8)
        negative["synthetic"] = np.ones(len(pool), bool)
        parts.append(negative)
        keys.append(draw(seed, _PAIR_ORDER + 1 + copy, users[pool], sequence[pool]))
        order.append(sequence[pool])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    place = np.lexsort((np.concatenate(keys), np.concatenate(order), joined["fields"][:, schema.user_index]))
    return {name: values[place] for name, values in joined.items()}


def _arrays(batch: EncodedBatch) -> tuple[np.ndarray, ...]:
    return batch.fields, batch.time, batch.behaviour, batch.file_index, batch.line
