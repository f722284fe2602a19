"""Planted logs in memory, without files and Beam, to ask a peer whether it learns what it is for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.peer import Peer
from tf_lift.config import Config, load_config
from tf_lift.data.dataset_info import Boundaries, DatasetInfo, build_match_sets
from tf_lift.datastore import build_datastore
from tf_lift.interactions import InteractionLog
from tf_lift.metrics import auc
from tf_lift.schema import FIRST_VALUE_ID, UNKNOWN_ID
from tf_lift.vocabulary import Vocabulary

TOML = """
name = "planted"

[source]
paths = ["none.csv"]

[[fields]]
name = "user"
entity = "user"
key = true

[[fields]]
name = "item"
entity = "item"
key = true

[[fields]]
name = "category"
entity = "item"

[behaviour]
kind = "column"
column = "label"

[split]
mode = "static"

[retrieval]
num_neighbours = 4
context_length = 8

[training]
batch_size = 32
"""


@dataclasses.dataclass(frozen=True)
class Planted:
    """A log and what a peer is built from.

    Attributes:
        config: the configuration.
        info: vocabularies, ids and split.
        log: the interactions.
    """

    config: Config
    info: DatasetInfo
    log: InteractionLog

    @property
    def dataset(self) -> Any:
        """What `Peer.pretrain` reads of a data set."""
        return SimpleNamespace(
            config=self.config, info=self.info, log=self.log, positive=self.log.behaviour == 1, example_pattern=None
        )

    def build(self, peer: type[Peer], settings: Any, name: str = "peer") -> Peer:
        """A peer over this log, without variables yet."""
        tf.keras.utils.set_random_seed(1)
        store = build_datastore(self.log, None, self.config.retrieval.context_length)
        return peer(settings, self.config, self.info, store, name)

    def slates(self, rows: np.ndarray, items: np.ndarray | None = None, neighbours: np.ndarray | None = None) -> Any:
        """Slates at rows of the log.

        Args:
            rows: [n] the targets.
            items: int32 [n, C] candidates' ids, a positive where it is the target's own; None: the target with its own label.
            neighbours: int32 [n, C, K] row ids; None: none.
        """
        log = self.log
        known = np.stack([vocabulary.num_ids_at(log.time[rows]) for vocabulary in self.info.vocabularies], axis=1)
        own = log.fields[rows]
        fields = own[:, None] if items is None else np.repeat(own[:, None], items.shape[1], axis=1)
        if items is not None:
            fields[:, :, 1:] = self.info.entity_fields["item"][items - FIRST_VALUE_ID][:, :, 1:]
        label = log.behaviour[rows][:, None] if items is None else items == own[:, 1:2]
        shape = (*label.shape, 4)
        return {
            "time": tf.constant(log.time[rows]),
            "row": tf.constant(rows, tf.int64),
            "history_position": tf.constant(log.positions_at(own[:, 0], log.time[rows])),
            "fields": tf.constant(np.where(fields < known[:, None], fields, UNKNOWN_ID).astype(np.int32)),
            "label": tf.constant(label.astype(np.float32)),
            "mask": tf.ones(label.shape, tf.bool),
            "neighbour_rows": tf.constant(np.full(shape, -1) if neighbours is None else neighbours, tf.int32),
            "neighbour_scores": tf.zeros(shape),
            "neighbour_num_future": tf.zeros(shape, tf.int32),
            "match_counts": tf.zeros((*label.shape, 1), tf.int32),
            "match_positives": tf.zeros((*label.shape, 1), tf.int32),
        }

    def rows_of(self, split: str) -> np.ndarray:
        """Row ids of a split: "pool", "train", "validation" or "test"."""
        number = ("pool", "train", "validation", "test").index(split)
        return np.flatnonzero(self.info.boundaries.split_of(self.log.time) == number)

    def fit(self, peer: Peer, slates: Any, epochs: int = 10, learning_rate: float = 0.01) -> None:
        """Trains a peer on slates."""
        peer({key: value[:1] for key, value in slates.items()})
        peer.compile(optimizer=tf.keras.optimizers.Adam(learning_rate))
        data = tf.data.Dataset.from_tensor_slices(slates).shuffle(10_000, seed=1).batch(self.config.training.batch_size)
        peer.fit(data, epochs=epochs, verbose=0)

    def measure_auc(self, peer: Peer, slates: Any) -> float:
        """AUC over all candidates of slates."""
        logits = peer(slates, training=False).numpy()
        return auc(slates["label"].numpy().ravel(), logits.ravel())

    def share_first(self, peer: Peer, slates: Any) -> float:
        """Share of the slates whose positive has the highest logit."""
        logits = peer(slates, training=False).numpy()
        return float(np.mean(logits.argmax(axis=1) == slates["label"].numpy().argmax(axis=1)))


def make_planted(
    config: Config,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray,
    labels: np.ndarray,
    categories: np.ndarray,
    cuts: tuple[int, int, int],
) -> Planted:
    """Builds a log.

    Args:
        config: the configuration.
        users: [n] numbers.
        items: [n] numbers.
        times: [n] epoch seconds.
        labels: [n] 0 or 1.
        categories: [I] of each item's number.
        cuts: train_from, validation_from, test_from.
    """
    order = np.argsort(times, kind="stable")
    users, items, times, labels = (np.asarray(column)[order] for column in (users, items, times, labels))
    vocabularies, ids = [], []
    for name, values in (("user", users), ("item", items), ("category", categories[items])):
        found, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        by_first = np.argsort(first)
        vocabularies.append(Vocabulary(name, tuple(str(found[place]) for place in by_first), times[first[by_first]]))
        ids.append(FIRST_VALUE_ID + np.argsort(by_first)[inverse])
    fields = np.stack(ids, axis=1).astype(np.int32)
    by_user = np.argsort(fields[:, 0], kind="stable")
    fields, times, labels = fields[by_user], times[by_user], labels[by_user]
    starts = np.concatenate([[0], np.cumsum(np.bincount(fields[:, 0])[FIRST_VALUE_ID:])])
    log = InteractionLog(fields, times, labels.astype(np.int8), np.zeros(len(times), bool), starts)
    user_fields = np.pad(np.arange(log.num_users, dtype=np.int32)[:, None] + FIRST_VALUE_ID, ((0, 0), (0, 2)))
    item_fields = np.zeros((vocabularies[1].num_ids - FIRST_VALUE_ID, 3), np.int32)
    item_fields[fields[:, 1] - FIRST_VALUE_ID, 1:] = fields[:, 1:]
    info = DatasetInfo(
        Boundaries(*cuts),
        tuple(vocabularies),
        build_match_sets(config.schema),
        {"user": user_fields, "item": item_fields},
    )
    return Planted(config, info, log)


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Planted]:
    """Makes a log of users, items, times, labels, categories and cuts (see `make_planted`)."""
    path = tmp_path_factory.mktemp("planted") / "planted.toml"
    path.write_text(TOML, encoding="utf-8")
    return functools.partial(make_planted, load_config(path))
