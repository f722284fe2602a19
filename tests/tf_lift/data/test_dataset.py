"""The inputs of training: nothing lost, nothing twice, and an order that can be repeated."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.item_sequences import build_item_sequences
from tf_lift.baselines.pool_slates import PoolSlates
from tf_lift.data.dataset import read_examples, window_batches
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.data.windows import read_windows, write_windows


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> Dataset:
    return tiny.dataset()


def read_rows(dataset: Dataset, split: str, seed: int | None, batch_size: int = 32) -> list[int]:
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    batches = read_examples(dataset, split, spec, batch_size, seed)
    return [row for batch in batches for row in batch["row"].numpy().tolist()]


def test_every_example_is_read_once_an_epoch(dataset: Dataset) -> None:
    splits = dataset.info.boundaries.split_of(dataset.log.time)
    for number, split in enumerate(("train", "validation", "test"), start=1):
        expected = np.flatnonzero(splits == number).tolist()
        for seed in (None, 3):
            assert sorted(read_rows(dataset, split, seed, 17)) == expected


def test_order_follows_the_seed(dataset: Dataset) -> None:
    tf.keras.utils.set_random_seed(7)
    first, again, other = (read_rows(dataset, "train", seed) for seed in (7000, 7000, 7001))
    assert first == again != other
    in_file_order = read_rows(dataset, "train", None)
    assert in_file_order == read_rows(dataset, "train", None) and in_file_order not in (first, other)


def test_a_split_knows_its_number_of_batches(dataset: Dataset) -> None:
    spec, count = build_example_spec(dataset.config, len(dataset.info.statistic_sets)), dataset.num_examples("train")
    batches = read_examples(dataset, "train", spec, 32, 7000)
    assert len(batches) == sum(1 for _ in batches) == -(-count // 32)
    for wrong in (count - 32, count + 32):
        counted = dataclasses.replace(dataset, counts={"train_examples": wrong})
        with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain"):
            list(read_examples(counted, "train", spec, 32, 7000))


def test_no_input_is_tuned_while_it_runs(dataset: Dataset) -> None:
    """An iterator's end may wait for the tuner's sleep, as long as the epoch itself."""
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    windows = window_batches(np.arange(4), np.full(4, 2), (2, 1), 2, 7, True)
    slates = PoolSlates(dataset).batches(7)
    sequences = build_item_sequences(dataset, dataset.info.boundaries.train_from, 3).batches(np.array([True]), 1, None)
    for batches in (read_examples(dataset, "train", spec, 32, 7000), windows, slates, sequences):
        for derived in (batches, batches.cache(), batches.map(lambda *parts: parts).prefetch(2)):
            assert derived.options().autotune.enabled is False


def test_missing_examples_are_an_error(dataset: Dataset) -> None:
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    with pytest.raises(
        ValueError, match=r"Received: no file like .*nothing-\*\.tfrecord. Run `python -m beam.preprocess`"
    ):
        read_examples(dataset, "nothing", spec, 4)


def read_window_batches(seed: int, shuffle: bool, batch_size: int = 4) -> dict[int, tuple[int, np.ndarray]]:
    """first row -> (number of rows, noise), in the order of the batches."""
    first, count = np.arange(0, 70, 7), np.arange(1, 11)
    batches = list(window_batches(first, count, (5, 3), batch_size, seed, shuffle))
    assert [len(batch["first_row"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    return {
        int(row): (int(number), noise)
        for batch in batches
        for row, number, noise in zip(
            *(batch[name].numpy() for name in ("first_row", "num_rows", "noise")), strict=True
        )
    }


def test_windows_come_once_with_noise_of_their_own() -> None:
    windows = read_window_batches(1, False)
    assert [(row, number) for row, (number, _) in windows.items()] == [(7 * index, index + 1) for index in range(10)]
    noises = np.stack([noise for _, noise in windows.values()])
    assert noises.shape == (10, 5, 3) and len(np.unique(noises)) > 140 and noises.min() >= 0 and noises.max() < 1


@pytest.mark.parametrize("seed", [3, 3_000_000_007])
def test_noise_depends_on_window_and_seed_alone(seed: int) -> None:
    in_order, shuffled, other = (
        read_window_batches(seed, False),
        read_window_batches(seed, True, 3),
        read_window_batches(seed + 1, True),
    )
    assert list(in_order) != list(shuffled) != list(other)
    assert set(in_order) == set(shuffled) == set(other)
    for row, (number, noise) in in_order.items():
        assert shuffled[row][0] == other[row][0] == number
        np.testing.assert_array_equal(shuffled[row][1], noise)
        assert (other[row][1] != noise).any()


def test_windows_come_back_from_their_file(tmp_path: Any) -> None:
    for size in (0, 3, 65537):  # none, few, more than one record
        first, count = np.arange(size, dtype=np.int64) * 3, np.arange(size, dtype=np.int64) % 6
        write_windows(tmp_path / "windows.tfrecord", first, count)
        read_first, read_count = read_windows(tmp_path / "windows.tfrecord")
        np.testing.assert_array_equal(read_first, first)
        np.testing.assert_array_equal(read_count, count)
