"""Counts of a user's rows that agree with a candidate, beside a loop."""

import numpy as np
import tensorflow as tf

from tf_lift.datastore import Window
from tf_lift.layers.history_agreements import count_agreements
from tf_lift.schema import FIRST_VALUE_ID


def test_counts_equal_a_loop_and_padding_and_unknown_values_agree_with_nothing() -> None:
    rng = np.random.default_rng(5)
    batch, num_candidates, length, num_fields, chosen = 4, 6, 9, 3, (0, 2)
    fields = rng.integers(0, FIRST_VALUE_ID + 3, (batch, num_candidates, num_fields))
    rows = rng.integers(0, FIRST_VALUE_ID + 3, (batch, length, num_fields))
    labels = rng.integers(0, 2, (batch, length))
    num_rows = np.array([0, 3, 9, 8])
    mask = np.arange(length) < num_rows[:, None]
    history = Window(
        tf.constant(rows, tf.int32),
        tf.constant(labels, tf.int32),
        tf.zeros((batch, length), tf.int64),
        tf.constant(mask),
        tf.constant(num_rows, tf.int32),
    )
    counts, positives = count_agreements(
        tf.constant(fields, tf.int32), history, tf.constant(labels, tf.float32), chosen
    )
    for b in range(batch):
        for c in range(num_candidates):
            agreeing = [
                [r for r in range(num_rows[b]) if rows[b, r, f] == fields[b, c, f] >= FIRST_VALUE_ID] for f in chosen
            ]
            agreeing.append(list(range(num_rows[b])))
            assert counts[b, c].numpy().tolist() == [len(found) for found in agreeing]
            assert positives[b, c].numpy().tolist() == [labels[b, found].sum() for found in agreeing]
    assert counts.numpy()[..., :-1].any() and (counts.numpy()[..., :-1] == 0).any()
