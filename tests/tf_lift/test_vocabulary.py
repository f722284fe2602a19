"""Ids in order of first appearance, as of a time, and their file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_lift.schema import FIRST_VALUE_ID, PADDING_ID, UNKNOWN_ID
from tf_lift.vocabulary import Vocabulary, read_vocabulary

VOCABULARY = Vocabulary("genre", ("Drama", "Film-Noir", "(unknown)"), np.array([10, 20, 20]))


def test_ids_and_values():
    ids = VOCABULARY.ids(["Film-Noir", "", "Western", "Drama", "drama", "(unknown)"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [3, PADDING_ID, UNKNOWN_ID, FIRST_VALUE_ID, UNKNOWN_ID, 4]
    assert [VOCABULARY.value(value_id) for value_id in (0, 1, 2, 3, 4)] == [
        "",
        "(unknown)",
        "Drama",
        "Film-Noir",
        "(unknown)",
    ]
    assert VOCABULARY.num_ids == 5


def test_a_value_is_known_strictly_after_its_first_time():
    assert VOCABULARY.num_ids_at(np.array([[9, 10], [11, 20], [21, 99]])).tolist() == [[2, 2], [3, 3], [5, 5]]
    assert VOCABULARY.num_ids_at(15) == 3


def test_an_empty_vocabulary_has_two_ids():
    empty = Vocabulary("genre", (), np.zeros(0, np.int64))
    assert empty.num_ids == empty.num_ids_at(5) == 2
    assert empty.ids(["", "a"]).tolist() == [PADDING_ID, UNKNOWN_ID]


@pytest.mark.parametrize(("values", "times"), [(("a", "b"), [1]), (("a", "b"), [2, 1])])
def test_times_must_fit_the_values_and_ascend(values, times):
    with pytest.raises(ValueError, match="'genre' needs one time a value, ascending. Received: 2 values and"):
        Vocabulary("genre", values, np.array(times))


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(-(10**11), 10**11)), unique_by=lambda pair: pair[0]))
def test_any_text_reads_back(tmp_path_factory, pairs):
    pairs = sorted(pairs, key=lambda pair: pair[1])
    times = np.array([time for _, time in pairs], np.int64)
    path = tmp_path_factory.mktemp("vocabulary") / "genre.tsv"
    Vocabulary("genre", tuple(value for value, _ in pairs), times).write(path)
    read = read_vocabulary(path)
    assert read.name == "genre"
    assert read.values == tuple(value for value, _ in pairs)
    assert read.first_times.dtype == np.int64
    np.testing.assert_array_equal(read.first_times, times)


@pytest.mark.parametrize("value", ["a\tb", "a\nb", "a\u2028b", "a\x85b", "a\rb", '"', "\\", "\ufeff"])
def test_separators_inside_a_value_read_back(tmp_path, value):
    Vocabulary("genre", (value, "x"), np.array([1, 2])).write(tmp_path / "genre.tsv")
    assert read_vocabulary(tmp_path / "genre.tsv").values == (value, "x")
