"""What a state may depend on, for each kind of encoder."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Encoder as EncoderConfig
from tf_lift.data.masking import masked_label
from tf_lift.models.encoder import Encoder, EncoderStates

KINDS = ("causal", "bidirectional", "gru")
NUM_IDS, NUM_CLASSES, BATCH, LENGTH, QUERIES = (9, 7), 2, 4, 5, 3
NUM_ROWS = np.array([5, 3, 1, 0], np.int32)
MASK = np.arange(LENGTH) < NUM_ROWS[:, None]
VISIBLE = np.array([[5, 3, 0], [3, 1, 0], [1, 1, 0], [0, 0, 0]], np.int32)


def build_encoder(kind: str) -> Encoder:
    tf.keras.utils.set_random_seed(3)
    return Encoder(
        EncoderConfig(kind=kind, embedding_dim=4, state_dim=8, dropout_rate=0.0), NUM_IDS, NUM_CLASSES, LENGTH
    )  # type: ignore[arg-type]


def draw_inputs(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "fields": np.where(MASK[..., None], rng.integers(2, 7, (BATCH, LENGTH, 2)), 0).astype(np.int32),
        "labels": np.where(MASK, rng.integers(1, 3, (BATCH, LENGTH)), 0).astype(np.int32),
        "mask": MASK,
        "query_fields": rng.integers(2, 7, (BATCH, QUERIES, 2)).astype(np.int32),
        "visible": VISIBLE,
    }


def encode(encoder: Encoder, inputs: dict[str, np.ndarray]) -> EncoderStates:
    return encoder(**inputs, training=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_does_not_see_other_queries(kind: str) -> None:
    encoder, inputs = build_encoder(kind), draw_inputs()
    before = encode(encoder, inputs)
    for changed in range(QUERIES):
        other = inputs | {"query_fields": inputs["query_fields"].copy(), "visible": inputs["visible"].copy()}
        other["query_fields"][:, changed] = 8, 6
        other["visible"][:, changed] = 0
        after = encode(encoder, other)
        kept = np.arange(QUERIES) != changed
        np.testing.assert_allclose(after.queries.numpy()[:, kept], before.queries.numpy()[:, kept], atol=1e-6)
        np.testing.assert_allclose(after.rows, before.rows, atol=1e-6)
        assert np.abs(after.queries - before.queries).max(axis=-1)[:, changed].min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_fields_that_are_not_read_say_nothing(kind: str) -> None:
    whole, inputs = build_encoder(kind), draw_inputs()
    encoder = Encoder(whole.config, NUM_IDS, NUM_CLASSES, LENGTH, field_indices=(1,))
    before = encode(encoder, inputs)
    for field in (0, 1):
        other = {name: value.copy() for name, value in inputs.items()}
        for name in ("fields", "query_fields"):
            other[name][..., field] = 8 - other[name][..., field]
        after = encode(encoder, other)
        differ = [np.abs(ours - theirs).max() > 1e-3 for ours, theirs in zip(after, before, strict=True)]
        assert differ == [field == 1] * 2
    # What is read is the field's own part of the table.
    table = encoder.embedding.table.numpy()
    np.testing.assert_array_equal(
        encoder.embedding(inputs["fields"], field_indices=(1,))[..., 0, :], table[9 + inputs["fields"][..., 1]]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_padding_at_the_right_changes_nothing(kind: str) -> None:
    encoder, inputs = build_encoder(kind), draw_inputs()
    before = encode(encoder, inputs)
    noisy = inputs | {
        "fields": np.where(MASK[..., None], inputs["fields"], 3).astype(np.int32),
        "labels": np.where(MASK, inputs["labels"], 2).astype(np.int32),
    }
    after = encode(encoder, noisy)
    np.testing.assert_allclose(after.rows.numpy()[MASK], before.rows.numpy()[MASK], atol=1e-6)
    np.testing.assert_allclose(after.queries, before.queries, atol=1e-6)
    if kind == "bidirectional":  # a shorter window without the padding, too
        short = {
            name: value[1:2, :3] if name in ("fields", "labels", "mask") else value[1:2]
            for name, value in inputs.items()
        }
        np.testing.assert_allclose(encode(encoder, short).rows[0], before.rows[1, :3], atol=1e-6)


@pytest.mark.parametrize("kind", ["causal", "gru"])
def test_rows_see_no_later_row_and_queries_no_row_beyond_their_count(kind: str) -> None:
    encoder, inputs = build_encoder(kind), draw_inputs()
    before = encode(encoder, inputs)
    for changed in range(LENGTH):
        other = inputs | {"fields": inputs["fields"].copy(), "labels": inputs["labels"].copy()}
        other["fields"][:, changed] = 8, 6
        other["labels"][:, changed] = 3 - other["labels"][:, changed]
        after = encode(encoder, other)
        np.testing.assert_allclose(after.rows[:, :changed], before.rows[:, :changed], atol=1e-6)
        blind = VISIBLE <= changed
        np.testing.assert_allclose(after.queries.numpy()[blind], before.queries.numpy()[blind], atol=1e-6)
        if (~blind).any():
            assert np.abs(after.queries - before.queries).max(axis=-1)[~blind].min() > 1e-4


def test_bidirectional_rows_see_later_rows() -> None:
    encoder, inputs = build_encoder("bidirectional"), draw_inputs()
    other = inputs | {"labels": inputs["labels"].copy()}
    other["labels"][0, 4] = 3 - other["labels"][0, 4]
    assert np.abs(encode(encoder, other).rows[0, 0] - encode(encoder, inputs).rows[0, 0]).max() > 1e-4


@pytest.mark.parametrize("kind", ["causal", "gru"])
def test_a_query_equals_the_next_masked_row(kind: str) -> None:
    encoder, inputs = build_encoder(kind), draw_inputs()
    states = encode(encoder, inputs)
    for batch, query in np.argwhere(VISIBLE < LENGTH):
        place = VISIBLE[batch, query]
        appended = {name: inputs[name][batch : batch + 1].copy() for name in ("fields", "labels", "mask")}
        appended["fields"][0, place] = inputs["query_fields"][batch, query]
        appended["labels"][0, place] = masked_label(NUM_CLASSES)
        appended["mask"] = np.arange(LENGTH)[None] <= place
        rows = encoder(**appended, query_fields=np.zeros((1, 0, 2), np.int32), visible=np.zeros((1, 0), np.int32)).rows
        np.testing.assert_allclose(rows[0, place], states.queries[batch, query], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_last_states_are_of_the_last_real_row(kind: str) -> None:
    encoder = build_encoder(kind)
    rows = encode(encoder, draw_inputs()).rows
    last = encoder.last_states(rows, tf.constant(NUM_ROWS)).numpy()
    np.testing.assert_array_equal(last[:3], [rows[0, 4], rows[1, 2], rows[2, 0]])
    assert not last[3].any()
    inputs = draw_inputs()
    alone = encoder.encode_last(inputs["fields"], inputs["labels"], inputs["mask"])
    np.testing.assert_allclose(alone, last, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_same_answer_after_saving_and_reading(kind: str, tmp_path: Path) -> None:
    encoder, inputs = build_encoder(kind), draw_inputs()
    expected = encode(encoder, inputs)
    tf.train.Checkpoint(encoder=encoder).write(str(tmp_path / "weights"))
    tf.keras.utils.set_random_seed(99)
    other = Encoder(encoder.config, NUM_IDS, NUM_CLASSES, LENGTH)
    assert np.abs(encode(other, inputs).rows - expected.rows).max() > 1e-3
    tf.train.Checkpoint(encoder=other).read(str(tmp_path / "weights")).assert_consumed()
    for name in ("rows", "queries"):
        np.testing.assert_array_equal(getattr(encode(other, inputs), name), getattr(expected, name))
