"""A log whose answer lies in what people in the user's situation did next: the model must find it there, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from beam import preprocess
from tf_lift import synthetic, train
from tf_lift.config import load_config
from tf_lift.data.dataset_files import open_dataset
from tf_lift.metrics import auc
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.workspace import Workspace

NUM_SITUATIONS = 500
SECONDS = 100  # of one situation; the next begins when it is over
NUM_LIKE = 3  # people who were in a situation before the user whose rows are targets

TOML = """
name = "situation"
workspace = "{folder}/workspace"
fields = [
  {{ name = "user", entity = "user", key = true }},
  {{ name = "item", entity = "item", key = true }},
]

[source]
paths = ["{folder}/interactions.csv"]

[behaviour]
kind = "column"
column = "label"

[split]
mode = "rolling"
by = "times"
train_from = {train_from}
test_from = {test_from}

[retrieval]
num_neighbours = 2
context_length = 6
exclude_own_user = true

[encoder]
embedding_dim = 8
state_dim = 16
num_layers = 1

[pretraining]
next_item = true
learning_rate = 0.005
num_epochs = 3

[situation]
overlap = {overlap}
overlap_neighbours = 6

[predictor]
contexts = "none"
hidden_dims = [32]

[training]
batch_size = 32
learning_rate = 0.003
num_epochs = 6
patience = 10
"""


def write_log(folder: Path, rows: Sequence[tuple[str, str, int, int]]) -> None:
    synthetic.write_tables({"interactions.csv": synthetic.Table(("user", "item", "time", "label"), list(rows))}, folder)


def plant_next_items() -> list[tuple[str, str, int, int]]:
    """Of two new items, each liked as often, that one is liked which people with the user's own new item went on to."""
    rng, rows = np.random.default_rng(5), []
    for number in range(NUM_SITUATIONS):
        begin, right = number * SECONDS, int(rng.integers(2))
        for kind in (0, 1):
            for like in range(NUM_LIKE):
                at = begin + 10 * like + 5 * kind
                user = f"u{number}-{kind}-{like}"
                rows += [
                    (user, f"s{number}-{kind}", at, 1),
                    (user, "all", at + 1, 1),
                    (user, f"n{number}-{kind}", at + 2, 1),
                ]
        user, at = f"u{number}", begin + 60
        rows += [(user, f"s{number}-{right}", at, 1), (user, "all", at + 1, 1)]
        rows += [(user, f"n{number}-{kind}", at + 2, int(kind == right)) for kind in (0, 1)]
    return rows


def measure(folder: Path, overlap: bool) -> float:
    """AUC of the test split's targets, those rows of which the situation decides."""
    path = folder / "situation.toml"
    ends = {"train_from": NUM_SITUATIONS // 3 * SECONDS, "test_from": NUM_SITUATIONS * 4 // 5 * SECONDS}
    path.write_text(TOML.format(folder=folder, overlap=str(overlap).lower(), **ends), encoding="utf-8")
    config = load_config(path)
    preprocess.run(config)
    train.run(config)
    with np.load(Workspace(config).stage_dir("evaluate") / "candidates.npz") as answers:
        fields, labels, probabilities = (answers[name] for name in ("fields", "labels", "probabilities"))
    users, items = (vocabulary.values for vocabulary in open_dataset(Workspace(config)).info.vocabularies)
    is_known = (fields >= FIRST_VALUE_ID).all(axis=1)
    asked = [
        known and "-" not in users[user - FIRST_VALUE_ID] and items[item - FIRST_VALUE_ID].startswith("n")
        for known, (user, item) in zip(is_known, fields, strict=True)
    ]
    assert labels[asked].mean() == 0.5
    return auc(labels[asked], probabilities[asked])


@pytest.mark.slow
def test_the_answer_is_what_the_situation_s_neighbours_did_next(tmp_path: Path) -> None:
    write_log(tmp_path, plant_next_items())
    assert measure(tmp_path, overlap=True) > 0.95


@pytest.mark.slow
def test_the_answer_is_nowhere_else(tmp_path: Path) -> None:
    """Own history, counts, BM25's neighbours with their labels, and the next item's loss stay on."""
    write_log(tmp_path, plant_next_items())
    assert measure(tmp_path, overlap=False) < 0.65
