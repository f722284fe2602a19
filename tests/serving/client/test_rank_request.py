from __future__ import annotations

import dataclasses

import pytest

from serving.rank_request import HistoryInteraction, RankRequest, UserItemPair


@pytest.mark.parametrize("items", [[], ["a", ""], "abc"])
def test_items_must_be_ids(items):
    with pytest.raises(ValueError, match="Items must be a list of at least one id.*Received"):
        RankRequest("u1", items)
    with pytest.raises(ValueError, match="pair must have an item. Received"):
        UserItemPair("u1", "")
    with pytest.raises(ValueError, match="must have an item, as an empty one is padding. Received"):
        HistoryInteraction("", "1", 5)


@pytest.mark.parametrize("time", [1 << 63, -(1 << 63) - 1])
def test_times_must_fit(time):
    for build in (
        lambda: RankRequest("u1", ["a"], time),
        lambda: UserItemPair("u1", "a", time),
        lambda: HistoryInteraction("a", "1", time),
    ):
        with pytest.raises(ValueError, match=f"epoch seconds that fit int64. Received: {time}"):
            build()


def test_requests_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RankRequest("u1", ["a"]).user = "u2"


def test_a_request_brings_the_user_by_a_history_or_attributes():
    assert not RankRequest("u1", ["a"], context={"store": "s"}).brings_user
    assert RankRequest("u1", ["a"], history=()).brings_user
    assert RankRequest("u1", ["a"], user_attributes={"age": "25"}).brings_user
