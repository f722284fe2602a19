"""What training needs to know of a data set, read from its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_lift.config import Config
from tf_lift.retrieval.match_sets import MatchSets, find_match_sets
from tf_lift.schema import Schema
from tf_lift.vocabulary import Vocabulary, read_vocabulary

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """The global-time split, epoch seconds: pool < train_from <= train < validation_from <= validation < test_from <= test."""

    train_from: int
    validation_from: int
    test_from: int

    def split_of(self, times: np.ndarray) -> np.ndarray:
        """int8 of the times' shape: 0 pool, 1 train, 2 validation, 3 test."""
        edges = np.array([self.train_from, self.validation_from, self.test_from])
        return np.searchsorted(edges, times, side="right").astype(np.int8)


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The part of a data set that is not rows.

    Attributes:
        boundaries: the split.
        vocabularies: M vocabularies, over the whole log.
        match_sets: the S closed sets.
        entity_fields: for "user" and "item", int32 [U or I, M] the ids of each entity's fields (0 in the other columns), row
            u being the entity of id u + FIRST_VALUE_ID.
    """

    boundaries: Boundaries
    vocabularies: tuple[Vocabulary, ...]
    match_sets: MatchSets
    entity_fields: Mapping[str, np.ndarray]

    @property
    def num_pool_ids(self) -> tuple[int, ...]:
        """M numbers of ids that had appeared before train: what the encoder embeds."""
        return tuple(int(vocabulary.num_ids_at(self.boundaries.train_from)) for vocabulary in self.vocabularies)

    @property
    def num_train_ids(self) -> tuple[int, ...]:
        """M numbers of ids that had appeared before validation: what the predictor embeds."""
        return tuple(int(vocabulary.num_ids_at(self.boundaries.validation_from)) for vocabulary in self.vocabularies)

    @property
    def statistic_sets(self) -> tuple[int, ...]:
        """The match sets whose counts an example carries: those of at most two generators."""
        return tuple(index for index, fields in enumerate(self.match_sets.generators) if len(fields) <= 2)


def build_match_sets(schema: Schema) -> MatchSets:
    """The closed sets of a schema's query fields: a user determines the user fields, an item the item fields."""
    determined = {schema.user_index: schema.indices("user"), schema.item_index: schema.indices("item")}
    return find_match_sets(schema.query_indices, len(schema), determined)


def read_dataset_info(dataset_dir: Path, config: Config, manifest: Mapping[str, Any]) -> DatasetInfo:
    """Reads vocabularies, entity tables and match sets.

    Args:
        dataset_dir: the folder that preprocessing wrote.
        config: its configuration.
        manifest: its manifest, or while it is being written anything with its `boundaries`.
    """
    schema = config.schema
    vocabularies = tuple(read_vocabulary(dataset_dir / "vocabulary" / f"{name}.tsv") for name in schema.names)
    return DatasetInfo(
        Boundaries(**manifest["boundaries"]),
        vocabularies,
        build_match_sets(schema),
        {entity: np.load(dataset_dir / f"{entity}s.npy") for entity in ("user", "item")},
    )
