"""The one definition of an example: what is written comes back."""

from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lift.data.examples import NO_RANK, ExampleSpec, build_example_spec

SPEC = ExampleSpec(("user", "hour"), ("item", "genre"), ("user", "genre", "item", "hour"), 3, 2)
ITEM = 2  # column of the item's key


def draw_slate(num_candidates: int, seed: int, spec: ExampleSpec = SPEC) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, 2**31 - 1, (num_candidates, len(spec.field_names))).astype(np.int32)
    fields[:, [index for index, name in enumerate(spec.field_names) if name in spec.shared_fields]] = rng.integers(
        0, 99
    )
    fields[:, ITEM] = np.maximum(fields[:, ITEM], 1)
    fields[: num_candidates // 2, 1] = 0  # a missing genre
    shape = (num_candidates, spec.num_neighbours)
    return {
        "time": rng.integers(-(2**62), 2**62),
        "rank": rng.integers(-1, 2**40),
        "history_rank": rng.integers(-1, 2**40),
        "fields": fields,
        "label": rng.integers(0, 2, num_candidates),
        "neighbour_ranks": rng.integers(-1, 2**31 - 1, shape).astype(np.int32),
        "neighbour_scores": rng.random(shape).astype(np.float32),
        "neighbour_num_future": rng.integers(0, 127, shape).astype(np.int32),
        "match_counts": rng.integers(0, 2**31 - 1, (num_candidates, spec.num_statistics)).astype(np.int32),
        "match_positives": rng.integers(0, 2**31 - 1, (num_candidates, spec.num_statistics)).astype(np.int32),
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 2**31))
def test_slates_of_any_length_come_back_padded_to_the_longest(lengths: list[int], seed: int) -> None:
    slates = [draw_slate(length, seed + index) for index, length in enumerate(lengths)]
    parsed = {
        name: value.numpy()
        for name, value in SPEC.parse(tf.constant([SPEC.serialize(slate) for slate in slates])).items()
    }
    width = max(lengths)
    np.testing.assert_array_equal(parsed["mask"], np.arange(width) < np.array(lengths)[:, None])
    paddings = {"neighbour_ranks": NO_RANK}
    for index, (slate, length) in enumerate(zip(slates, lengths, strict=True)):
        for name, value in slate.items():
            if np.ndim(value) == 0:
                assert parsed[name][index] == value
                continue
            np.testing.assert_array_equal(parsed[name][index, :length], value)
            rest = parsed[name][index, length:]
            if name == "fields":  # shared fields are everywhere
                assert not rest[:, 1:3].any() and (rest[:, [0, 3]] == value[0, [0, 3]]).all()
            else:
                assert (rest == paddings.get(name, 0)).all()
    assert parsed["fields"].dtype == parsed["neighbour_ranks"].dtype == np.int32 and parsed["label"].dtype == np.float32


def test_bytes_are_a_function_of_the_slate() -> None:
    assert SPEC.serialize(draw_slate(3, 1)) == SPEC.serialize(dict(reversed(draw_slate(3, 1).items())))
    assert SPEC.serialize(draw_slate(3, 1)) != SPEC.serialize(draw_slate(3, 2))


def test_a_spec_without_statistics_parses() -> None:
    spec = ExampleSpec(SPEC.shared_fields, SPEC.candidate_fields, SPEC.field_names, 2, 0)
    parsed = spec.parse(tf.constant([spec.serialize(draw_slate(2, 0, spec))]))
    assert parsed["match_counts"].shape == (1, 2, 0) and parsed["neighbour_ranks"].shape == (1, 2, 2)


def test_a_missing_attribute_does_not_make_a_candidate_padding(tiny: Any) -> None:
    """`genre` stands before the item's key in the configuration, and some items have none."""
    dataset = tiny.dataset()
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    assert spec.candidate_fields == ("item", "genre") and spec.shared_fields == ("user", "age", "channel")
    paths = sorted(tf.io.gfile.glob(dataset.example_pattern("test")))
    parsed = spec.parse(tf.constant(list(tf.data.TFRecordDataset(paths).as_numpy_iterator())))
    assert (parsed["fields"][..., dataset.config.schema.index("genre")].numpy() == 0).any()
    assert parsed["mask"].numpy().all()
