"""A log whose answer lies in the neighbours' futures: the model must find it there, and nowhere else."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from beam import preprocess
from tf_lift import synthetic, train
from tf_lift.baselines.ranker_job import RankerJob
from tf_lift.baselines.train_peer import train_and_score
from tf_lift.config import Config, load_config
from tf_lift.metrics import auc
from tf_lift.workspace import Workspace

NUM_ROWS = 16_000
SEEDS = (7, 8, 9)

TOML = """
name = "future"
workspace = "{folder}/workspace"

[source]
paths = ["{folder}/interactions.csv"]

[[source.attributes]]
paths = ["{folder}/items.csv"]
entity = "item"
key = "item"

[[fields]]
name = "user"
entity = "user"
key = true

[[fields]]
name = "item"
entity = "item"
key = true

[[fields]]
name = "group"
entity = "item"

[[fields]]
name = "situation"
entity = "context"

[behaviour]
kind = "column"
column = "label"

[split]
mode = "static"
by = "times"
train_from = {train_from}
test_from = {test_from}

[retrieval]
num_neighbours = {num_neighbours}
context_length = {context_length}
exclude_own_user = true

[pipeline]
num_shards = 1
example_shards = 1

[encoder]
embedding_dim = 8
state_dim = 16
num_layers = 1

[pretraining]
batch_size = 128
learning_rate = 0.005
num_epochs = 3

[predictor]
hidden_dims = [32]

[training]
batch_size = 32
learning_rate = 0.003
num_epochs = 4
"""


def write_log(folder: Path, tables: dict[str, synthetic.Table]) -> Config:
    """Writes a log of kind "future" and its preprocessed data set."""
    synthetic.write_tables(tables, folder)
    path = folder / "future.toml"
    path.write_text(
        TOML.format(
            folder=folder,
            train_from=synthetic.TRAIN_FROM,
            test_from=synthetic.TEST_FROM,
            num_neighbours=synthetic.NUM_MEETINGS,
            context_length=synthetic.NUM_FOLLOWING,
        ),
        encoding="utf-8",
    )
    config = load_config(path)
    preprocess.run(config)
    return config


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_log(tmp_path_factory.mktemp("planted"), synthetic.generate("future", NUM_ROWS))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Config:
    tables = synthetic.generate("future", NUM_ROWS)
    tables["interactions.csv"] = shuffle_train_labels(tables["interactions.csv"])
    return write_log(tmp_path_factory.mktemp("shuffled"), tables)


def shuffle_train_labels(table: synthetic.Table) -> synthetic.Table:
    """Labels of train and validation, new ones for exactly half of each class.

    A plain shuffle leaves a small correlation with the class by chance. AUC does not see how small a difference is, so on a log
    whose classes are this easy to tell apart that correlation alone could make it 0 or 1.
    """
    seen: Counter[int] = Counter()
    rows = []
    for *fields, time, label in table.rows:
        if synthetic.TRAIN_FROM <= int(time) < synthetic.TEST_FROM:
            seen[int(label)] += 1
            label = seen[int(label)] % 2
        rows.append((*fields, time, label))
    return synthetic.Table(table.header, rows)


def measure(config: Config, **predictor: object) -> dict[str, float]:
    """Trains with other switches of the predictor, and returns the model's test metrics."""
    config = dataclasses.replace(config, predictor=dataclasses.replace(config.predictor, **predictor))
    train.run(config)
    results = json.loads((Workspace(config).stage_dir("evaluate") / "metrics.json").read_text(encoding="utf-8"))
    return results["rankers"]["tf_lift"]["all"]


def test_nothing_but_the_futures_differs_between_the_classes():
    """Counts on the log itself, so that a model that learns it cannot have learnt something else."""
    user_to_rows = defaultdict(list)
    for user, item, situation, time, label in synthetic.generate("future", NUM_ROWS)["interactions.csv"].rows:
        user_to_rows[user].append((str(item)[0], situation, int(time), int(label)))
    all_rows = [row for rows in user_to_rows.values() for row in rows]
    targets = [row for row in all_rows if row[2] >= synthetic.TRAIN_FROM]
    situation_to_class = {situation: label for _, situation, _, label in targets}
    assert len(situation_to_class) == len(targets)  # one target a situation, so none of test is in train
    met: dict[str, list[int]] = defaultdict(list)
    futures, before, own = set(), Counter(), Counter()
    for rows in user_to_rows.values():
        place = next((place for place, row in enumerate(rows) if row[1]), None)
        if place is None:
            continue
        group, situation, time, label = rows[place]
        assert group == "n"
        hidden, earlier = situation_to_class[situation], rows[:place]
        assert [row[3] for row in earlier].count(1) == 1 and len(earlier) == 2
        counted = own if time >= synthetic.TRAIN_FROM else before
        counted.update((hidden, row[0]) for row in earlier)
        if time >= synthetic.TRAIN_FROM:
            assert place == len(rows) - 1
        else:
            met[situation].append(label)
            futures.add((hidden, *{row[0] for row in rows[place + 1 :]}))
            assert sorted(row[3] for row in rows[place + 1 :]) == [0, 0, 1, 1]
    assert all(sorted(labels) == [0, 1] for labels in met.values()) and len(met) == len(targets)
    assert futures == {(1, "a"), (0, "b")}
    for counts in (before, own):
        for hidden in (0, 1):  # at random, so within four standard deviations of a half
            total = counts[hidden, "a"] + counts[hidden, "b"]
            assert abs(counts[hidden, "a"] / total - 0.5) < 2 / np.sqrt(total)


@pytest.mark.slow
def test_answer_is_found_in_the_futures(planted):
    """The median of three seeds: attention finds it late or early, with its initial weights."""
    longer = dataclasses.replace(planted, training=dataclasses.replace(planted.training, num_epochs=12, patience=12))
    measured = [measure(dataclasses.replace(longer, seed=seed)) for seed in SEEDS]
    assert np.median([metrics["AUC"] for metrics in measured]) > 0.95
    assert np.median([metrics["LogLoss"] for metrics in measured]) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("contexts", ["none", "history"])
def test_answer_is_nowhere_else(planted, contexts):
    """Own history, target state, neighbours' labels and fields, and match statistics stay on."""
    assert measure(planted, contexts=contexts)["AUC"] < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranker", "settings", "is_found"),
    [("lift", {}, True), ("lift, no pretraining", {}, True), ("lift", {"predictor.contexts": "none"}, False)],
)
def test_the_paper_s_own_model_finds_it_too(planted, tmp_path, ranker, settings, is_found):
    longer = dataclasses.replace(planted, training=dataclasses.replace(planted.training, num_epochs=12, patience=12))
    scores = train_and_score(Workspace(longer), ranker, settings, SEEDS[0], tmp_path)
    labels = RankerJob(ranker, Workspace(longer), settings, SEEDS[0], tmp_path, ("test",)).candidates("test").labels
    assert (auc(labels, scores.test) > 0.9) if is_found else (auc(labels, scores.test) < 0.65)


@pytest.mark.slow
def test_shuffled_train_labels_teach_nothing(shuffled):
    """The mean of three seeds: one model's AUC on labels that it cannot know varies by about 0.07 with its initial weights."""
    measured = [measure(dataclasses.replace(shuffled, seed=seed)) for seed in SEEDS]
    assert 0.4 < np.mean([metrics["AUC"] for metrics in measured]) < 0.6
    assert min(metrics["LogLoss"] for metrics in measured) > 0.65  # ln 2 = 0.693 is what knowing nothing costs


def test_same_seed_makes_the_same_log_and_another_seed_another():
    first, again, other = (synthetic.generate("future", 1000, seed)["interactions.csv"].rows for seed in (1, 1, 2))
    assert first == again != other


def test_generator_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="`kind` must be one of simple, future. Received: 'futre'"):
        synthetic.generate("futre")
    with pytest.raises(ValueError, match="needs 100 rows or more. Received: 99"):
        synthetic.generate("simple", 99)
    with pytest.raises(ValueError, match="needs 500 rows or more. Received: 0"):
        synthetic.run(tmp_path / "out", "future", 0, 1)
    assert not (tmp_path / "out").exists()


def test_written_files_hold_the_tables(tmp_path):
    tables = synthetic.generate("simple", 200, 3)
    synthetic.write_tables(tables, tmp_path)
    for name, table in tables.items():
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert tuple(header) == table.header
        assert rows == [[str(cell) for cell in row] for row in table.rows]
