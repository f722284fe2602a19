"""What a ranker is given to be trained and read."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import ExampleSpec, build_example_spec
from tf_lift.evaluate import read_candidates
from tf_lift.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class RankerJob:
    """One ranker to train and to read, with what all of them need.

    Attributes:
        ranker: its name in the registry.
        workspace: the configuration's folders; its data set is there.
        settings: of the ranker's own class; for kind "ours" the configuration's keys.
        seed: of every random choice.
        folder: for checkpoints; a job that was killed goes on from them.
        splits: which of "validation" and "test" to answer.
    """

    ranker: str
    workspace: Workspace
    settings: Any
    seed: int
    folder: Path
    splits: tuple[str, ...]

    def with_batch_size(self, batch_size: int) -> "RankerJob":
        """The same with as many slates in a batch; 0: as it is."""
        if not batch_size:
            return self
        config = self.workspace.config
        training = dataclasses.replace(config.training, batch_size=batch_size)
        return dataclasses.replace(self, workspace=Workspace(dataclasses.replace(config, training=training)))

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set.

        Raises:
            ValueError: it is missing or stale.
        """
        return open_dataset(self.workspace)

    @functools.cached_property
    def spec(self) -> ExampleSpec:
        """The examples' definition."""
        return build_example_spec(self.workspace.config, len(self.dataset.info.statistic_sets))

    def candidates(self, split: str) -> Candidates:
        """The real candidates of "train", "validation" or "test", in file order."""
        return read_candidates(self.dataset, self.spec, split)

    def examples(self, split: str, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Batches of a split, as `read_examples` gives them."""
        size = self.workspace.config.training.batch_size
        return read_examples(self.dataset, split, self.spec, size, shuffle_seed)


def count_parameters(model: tf.keras.Model) -> int:
    """Numbers of all of a built model's weights, frozen ones among them."""
    return sum(weight.shape.num_elements() for weight in model.weights)


@contextlib.contextmanager
def measured(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Notes how long a block took, wall time."""
    began = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - began
