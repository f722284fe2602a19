"""The section `[situation]`, and which artefacts each of its settings belongs to."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from tf_lift.config import Config, Situation, load_config
from tf_lift.workspace import Workspace

TINY = Path(__file__).parents[2] / "configs" / "tiny.toml"
SECTIONS = ("source", "fields", "split", "behaviour", "negatives", "retrieval", "pipeline", "data_seed")


def load(*overrides: str) -> Config:
    return load_config(TINY, [f"situation.{override}" for override in overrides])


def fingerprint(*overrides: str) -> str:
    return Workspace(load(*overrides)).fingerprint("dataset")


def test_a_data_set_without_tables_keeps_its_hash() -> None:
    config = load()
    content = {
        name: [dataclasses.asdict(field) for field in config.fields]
        if name == "fields"
        else dataclasses.asdict(value)
        if dataclasses.is_dataclass(value := getattr(config, name))
        else value
        for name in SECTIONS
    }
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    assert config.section_hash(*SECTIONS, "transitions") == expected
    assert fingerprint("window=7", "history_rows=3") == fingerprint()


def test_a_data_set_depends_on_its_tables_alone() -> None:
    built = fingerprint("relations=all")
    assert built != fingerprint()
    for same in (("relations=future",), ("tables=true",), ("relations=past", "history_rows=3")):
        assert fingerprint(*same) == built
    for other in ("window=7", "max_followers=3", "num_snapshots=2"):
        assert fingerprint("relations=all", other) != built


def test_a_predictor_depends_on_the_relations_and_rows_that_it_reads() -> None:
    def hashed(*overrides: str) -> str:
        return load(*overrides).section_hash("predictor", "situation_features")

    assert hashed("tables=true", "history_rows=4") == hashed() == load().section_hash("predictor")
    assert (
        len({hashed(), hashed("relations=all"), hashed("relations=any"), hashed("relations=any", "history_rows=4")})
        == 4
    )


def test_relations_stand_in_one_order() -> None:
    assert Situation().relation_names == ()
    assert Situation("all").relation_names == ("future", "past", "any")
    assert Situation("both").relation_names == ("future", "past")
    assert Situation("past").relation_names == ("past",)


def test_no_more_rows_are_looked_up_than_a_history_has() -> None:
    assert load("history_rows=20").situation_rows == 8  # retrieval.context_length
    assert load("history_rows=3").situation_rows == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("window=0", "`situation.window` must be from 1 to 1000. Received: 0"),
        ("num_snapshots=33", "`situation.num_snapshots` must be from 1 to 32. Received: 33"),
        ("relations=futur", "`situation.relations` must be one of 'none'.*Did you mean 'future'"),
        ("rows=3", "Unknown key 'rows' in \\[situation\\]"),
    ],
)
def test_wrong_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(override)


def test_encoded_futures_are_of_the_kept_neighbours() -> None:
    overlap = ("overlap=true", "overlap_neighbours=5")
    hashes = {load(*overlap, *more).section_hash("situation_features") for more in ((), ("encoded_neighbours=2",))}
    assert len(hashes) == 2
    with pytest.raises(ValueError, match=r"needs `situation\.overlap`\. Received: encoded_neighbours = 2"):
        load("encoded_neighbours=2")
    with pytest.raises(ValueError, match="encoded_neighbours"):
        load(*overlap, "encoded_neighbours=6")
