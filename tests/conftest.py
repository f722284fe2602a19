"""A tiny log with ties, new users and items, missing attributes and a rule to learn; its data sets and trained models, made once."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from beam import preprocess
from tf_lift import train
from tf_lift.config import Config, load_config
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.training_loop import Schedule, train_epochs
from tf_lift.workspace import Workspace

NUM_USERS, NUM_ITEMS, NUM_ROWS = 40, 30, 1500
BEGIN = 1_500_000_000  # epoch seconds
HOUR = 3600

# `genre` stands before the item's key, and is missing for some items: nothing may take it for the key.
TOML = """
name = "tiny"
workspace = "{folder}/workspace"

[source]
paths = ["{folder}/log.csv"]

[[fields]]
name = "user"
entity = "user"
key = true

[[fields]]
name = "age"
entity = "user"

[[fields]]
name = "genre"
entity = "item"

[[fields]]
name = "item"
entity = "item"
key = true

[[fields]]
name = "channel"
entity = "context"

[behaviour]
kind = "threshold"
column = "rating"
threshold = 4.0

[split]
mode = "rolling"

[retrieval]
num_neighbours = 4
context_length = 6

[pipeline]
num_shards = 2
example_shards = 2

[encoder]
embedding_dim = 4
state_dim = 8
dropout_rate = 0.0

[pretraining]
num_epochs = 1
batch_size = 32

[predictor]
hidden_dims = [16]
dropout_rate = 0.0

[training]
num_epochs = 1
batch_size = 32
"""

HONEST = ('behaviour={kind="positive_only"}', 'negatives={protocol="honest",per_target=12}')
RIM = (
    'behaviour={kind="positive_only"}',
    'negatives={protocol="rim",per_target=12,per_pool_row=1}',
    'split={mode="static"}',
)
CLASSES = ('behaviour={kind="classes",column="verb",classes={view=0,cart=1,buy=2},positive_classes=[1,2]}',)


class TinyLog:
    """The log's file and configuration, and what is made of them.

    Attributes:
        folder: where it all lies.
        toml: the configuration's file.
    """

    honest, rim, classes = HONEST, RIM, CLASSES

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toml = folder / "tiny.toml"
        self.toml.write_text(TOML.format(folder=folder), encoding="utf-8")
        write_log(folder / "log.csv")
        self._names: dict[tuple[str, ...], str] = {}

    def load(self, *overrides: str) -> Config:
        """The configuration with overrides."""
        return load_config(self.toml, overrides)

    def overrides(self, *overrides: str) -> tuple[str, ...]:
        """The overrides with a name of their own, so that each data set has its folder."""
        name = self._names.setdefault(overrides, f"tiny_{len(self._names)}")
        return (f"name={name}", *overrides)

    def dataset(self, *overrides: str) -> Dataset:
        """The data set of a configuration, preprocessed once."""
        config = self.load(*self.overrides(*overrides))
        preprocess.run(config)
        return open_dataset(Workspace(config))

    def trained(self, *overrides: str) -> Workspace:
        """A workspace with all stages done."""
        config = self.dataset(*overrides).config
        train.run(config)
        return Workspace(config)


def write_log(path: Path) -> None:
    """Ratings that follow from the parities of user and item, a tenth of them by chance; later rows bring new users and items."""
    rng = np.random.default_rng(5)
    hours = np.sort(rng.integers(0, 300, NUM_ROWS))
    users = (rng.random(NUM_ROWS) * np.minimum(NUM_USERS, 25 + hours // 15)).astype(int)
    items = (rng.random(NUM_ROWS) * np.minimum(NUM_ITEMS, 20 + hours // 25)).astype(int)
    likes = np.where(rng.random(NUM_ROWS) < 0.9, (users + items) % 2, rng.integers(0, 2, NUM_ROWS))
    channels = rng.integers(0, 3, NUM_ROWS)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["user", "item", "age", "genre", "channel", "rating", "verb", "time"])
        for user, item, like, channel, hour in zip(users, items, likes, channels, hours, strict=True):
            genre = f"g{item % 4}" if item % 5 else ""
            verb = ("view", "cart", "buy")[like * (1 + channel % 2)]
            writer.writerow(
                [f"u{user}", f"i{item}", f"a{user % 3}", genre, f"c{channel}", 2 + 3 * like, verb, BEGIN + HOUR * hour]
            )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLog:
    return TinyLog(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def new_tiny(tmp_path: Path) -> Callable[[], TinyLog]:
    """Makes a log with folders that no other test touches."""
    return lambda: TinyLog(tmp_path)


@pytest.fixture
def check_decay(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, Callable[[], object], float], None]:
    """Checks that a training ends with its cosine: given its module, which calls `train_epochs`, itself, and the first rate."""

    def check(module: ModuleType, train_model: Callable[[], object], peak: float) -> None:
        optimizers: list[tf.keras.optimizers.Optimizer] = []

        def train_and_keep(
            name: str,
            model: tf.keras.Model,
            train_data: Any,
            validate: Callable[[], dict[str, float]],
            schedule: Schedule,
            *others: Any,
        ) -> dict[str, list[float]]:
            assert schedule.patience == schedule.num_epochs  # nothing stops before the rate has fallen
            falling = itertools.count(0.0, -1.0)  # the last epoch is the best, whose optimizer is kept
            history = train_epochs(
                name, model, train_data, lambda: {**validate(), "loss": next(falling)}, schedule, *others
            )
            optimizers.append(model.optimizer)
            return history

        monkeypatch.setattr(module, "train_epochs", train_and_keep)
        train_model()
        (optimizer,) = optimizers
        rate = tf.keras.optimizers.schedules.deserialize(optimizer.get_config()["learning_rate"])
        assert float(rate(0)) == pytest.approx(peak)
        assert float(rate(optimizer.iterations - 1)) > 0.0 == float(rate(optimizer.iterations))

    return check
