"""A planted order, from the raw log to the predictor: the next item is learnt and handed on."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf

from beam import preprocess
from tf_lift import train
from tf_lift.config import load_config
from tf_lift.data.dataset_files import open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import build_datastore
from tf_lift.fit import build_predictor, read_encoder_into, read_predictor
from tf_lift.pretrain import build_pretrainer, read_encoder
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.workspace import Workspace

TOML = """
name = "walks"
workspace = "{folder}/workspace"

[source]
paths = ["{folder}/log.csv"]

[[fields]]
name = "user"
entity = "user"
key = true

[[fields]]
name = "item"
entity = "item"
key = true

[negatives]
protocol = "honest"
per_target = 5
repeats = "keep"

[split]
train_rate = 0.2
test_rate = 0.2

[retrieval]
num_neighbours = 3
context_length = 127

[pipeline]
num_shards = 1
example_shards = 1

[encoder]
embedding_dim = 16
state_dim = 16
num_layers = 1
dropout_rate = 0.0

[pretraining]
next_item = true
next_item_gap = true
batch_size = 8
learning_rate = 0.01
num_epochs = 40
patience = 10

[predictor]
next_item_logit = true
hidden_dims = [8]

[training]
loss = "listwise"
num_epochs = 1
"""
NUM_USERS, NUM_STEPS, NUM_ITEMS = 40, 220, 24
STEPS = (11, 7)  # after days, within a minute


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Users go from item i to item i + 7 within a minute, to i + 11 after days, and one time in ten anywhere; more rows each than a
    window holds."""
    folder = tmp_path_factory.mktemp("walks")
    rng = np.random.default_rng(3)
    with (folder / "log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        items, times = rng.integers(0, NUM_ITEMS, NUM_USERS), 1_500_000_000 + np.arange(NUM_USERS)
        for _ in range(NUM_STEPS):
            for user in range(NUM_USERS):
                writer.writerow([f"u{user}", f"i{items[user]}", times[user]])
            is_long, anywhere = rng.random(NUM_USERS) < 0.5, rng.integers(0, NUM_ITEMS, NUM_USERS)
            following = (items + np.where(is_long, *STEPS)) % NUM_ITEMS
            items = np.where(rng.random(NUM_USERS) < 0.1, anywhere, following)
            times += np.where(is_long, 2 * 86_400, 30)
    (folder / "walks.toml").write_text(TOML.format(folder=folder), encoding="utf-8")
    config = load_config(folder / "walks.toml")
    preprocess.run(config)
    train.run(config, ["pretrain", "encode", "fit"])
    return Workspace(config)


@pytest.mark.slow
def test_the_item_that_follows_ranks_first(walks: Workspace) -> None:
    dataset = open_dataset(walks)
    store = build_datastore(dataset.log, None, 127)
    model = build_pretrainer(dataset, store)
    read_encoder(model, walks.stage_dir("pretrain"))
    log, item = dataset.log, dataset.config.schema.item_index
    rows = np.flatnonzero(log.time >= dataset.info.boundaries.test_from)
    history = store.history(tf.constant(log.positions_of_rows(rows, log.user_indices()[rows])))
    assert (history.num_rows.numpy() == 127).all()
    names = dataset.info.vocabularies[item].values
    to_number = np.array([int(name[1:]) for name in names])
    last, asked = (to_number[log.fields[places, item] - FIRST_VALUE_ID] for places in (rows - 1, rows))
    labels = tf.where(history.mask, history.behaviours + 1, 0)
    states = model.encoder.encode_rows(history.fields, labels, history.mask)
    candidates = np.tile(np.arange(len(names), dtype=np.int32) + FIRST_VALUE_ID, (len(rows), 1))
    logits = model.next_item.logits(history, states, candidates, tf.constant(log.time[rows]))
    best = to_number[logits.numpy().argmax(axis=1)]
    steps = np.where(log.time[rows] - log.time[rows - 1] > 60, *STEPS)
    assert 0.3 < (steps == STEPS[0]).mean() < 0.7
    assert (best == (last + steps) % NUM_ITEMS).mean() > 0.95
    assert (best == asked).mean() > 0.85


@pytest.mark.slow
def test_stages_hand_the_next_item_on_and_stop_by_the_loss_they_train(walks: Workspace) -> None:
    dataset = open_dataset(walks)
    spec = build_example_spec(walks.config, len(dataset.info.statistic_sets))
    store = build_datastore(dataset.log, np.zeros((dataset.log.num_positions, 16), np.float16), 127)
    pretrained = build_pretrainer(dataset, store)
    read_encoder(pretrained, walks.stage_dir("pretrain"))
    started = build_predictor(dataset, store, spec)
    read_encoder_into(started, dataset, walks.stage_dir("pretrain"))
    fitted = read_predictor(walks, dataset, store, spec)
    for model in (started, fitted):
        for weight, expected in zip(model.next_item.weights, pretrained.next_item.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
    epochs = json.loads((walks.stage_dir("pretrain") / "history.json").read_text(encoding="utf-8"))
    assert min(epochs["next_item_loss"]) < 1.2 < np.log(NUM_ITEMS) - 1 < epochs["next_item_loss"][0]
    (loss,) = json.loads((walks.stage_dir("fit") / "history.json").read_text(encoding="utf-8"))["loss"]
    assert loss < 1.0  # of six candidates, ln 6 = 1.79 by chance; LogLoss would be far lower or higher
