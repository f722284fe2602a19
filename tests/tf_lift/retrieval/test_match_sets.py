"""Which sets of query fields a candidate and a row may share."""

import pytest

from tf_lift.retrieval.match_sets import MAX_MATCH_SETS, find_match_sets


def test_ml_1m_has_26_closed_sets():
    match_sets = find_match_sets(range(6), 6, {0: [1, 2, 3], 4: [5]})
    assert len(match_sets) == 26 and match_sets.is_complete
    assert match_sets.sets[match_sets.set_of(0)] == (0, 1, 2, 3)
    assert match_sets.generators[match_sets.set_of(0)] == (0,)
    assert match_sets.sets[-1] == tuple(range(6)) and match_sets.generators[-1] == (0, 4)
    assert match_sets.query_fields() == tuple(range(6))


def test_sets_of_independent_fields():
    eight = find_match_sets(range(8), 8, {})
    assert len(eight) == MAX_MATCH_SETS == 255 and eight.is_complete
    for num_fields in (9, 12, 40, 255):
        match_sets = find_match_sets(range(num_fields), num_fields, {})
        assert num_fields <= len(match_sets) <= MAX_MATCH_SETS and not match_sets.is_complete
        assert match_sets.depth == max(len(generators) for generators in match_sets.generators) >= 1
        assert match_sets.query_fields() == tuple(range(num_fields))
    keys = find_match_sets(range(9), 9, {0: range(1, 5), 5: range(6, 9)})  # 17 sets of a user's side, 9 of an item's
    assert len(keys) == 17 * 9 - 1 and keys.is_complete


@pytest.mark.parametrize("num_fields", [0, 256])
def test_numbers_of_query_fields_that_have_no_sets_are_refused(num_fields):
    with pytest.raises(ValueError, match=f"From 1 to 255 fields may take part.*Received: {num_fields}. Set `query`"):
        find_match_sets(range(num_fields), 300, {})


def test_what_a_field_determines_determines_more():
    chained = find_match_sets(range(3), 3, {0: [1], 1: [2]})
    assert chained.sets == ((2,), (1, 2), (0, 1, 2)) and chained.generators == ((2,), (1,), (0,))
    with pytest.raises(ValueError, match=r"must not determine itself by way of others\. Received: .*field 0 does"):
        find_match_sets(range(2), 2, {0: [1], 1: [0]})
