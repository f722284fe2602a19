"""What neighbours of situations say, found once for a split, is what the predictor finds for a batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.data.dataset import read_examples
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import build_datastore
from tf_lift.fit import build_predictor
from tf_lift.slate_overlaps import find_slate_overlaps


@pytest.mark.parametrize("encoded", [0, 2])
def test_joined_sums_are_those_that_the_predictor_finds(tiny: Any, encoded: int) -> None:
    dataset = tiny.dataset(*tiny.honest, "situation.overlap=true", "situation.overlap_neighbours=5")
    situation = dataclasses.replace(dataset.config.situation, encoded_neighbours=encoded)
    dataset = dataclasses.replace(dataset, config=dataclasses.replace(dataset.config, situation=situation))
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    shape = (dataset.log.num_positions, dataset.config.encoder.state_dim)
    states = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    model = build_predictor(
        dataset, build_datastore(dataset.log, states, dataset.config.retrieval.context_length), spec
    )

    def read(batch_size: int) -> tf.data.Dataset:
        return read_examples(dataset, "test", spec, batch_size)

    found = find_slate_overlaps(model, read(64), len(dataset.log), "test")
    batch = next(iter(read(7)))
    joined = found.join(batch)
    expected = model.read_overlaps(batch, model.datastore.history(batch["history_position"]))
    assert len(expected) == (4 if encoded else 1)
    for name, values in expected.items():
        assert values.numpy().any(), name
        np.testing.assert_array_equal(joined[name], values)
    logits = [model(inputs, training=False).logits for inputs in (batch, found.join(batch))]
    np.testing.assert_array_equal(*logits)
