"""The studies: which variants they compare, and that a command answers one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import studies
from benchmarks.evidence.evaluation_set import BY_AGE, BY_ITEM_ROWS, BY_START, POOLED, read_evaluation_set
from benchmarks.evidence.study_list import find_study
from tf_lift.data.dataset import read_examples
from tf_lift.data.examples import build_example_spec
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.trial_runner import OWN
from tf_lift.workspace import Workspace

ROOT = Path(__file__).parents[2]
STUDIES = ("encoders", "contexts", "overlap", "mask_ratio", "neighbours", "length", "inference", "retrieval", "drift")


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made of configurations alone."""
    monkeypatch.setattr(studies, "make_data_set", lambda _: None)
    monkeypatch.setattr(studies, "read_evaluation_set", lambda *_: None)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("name", STUDIES)
def test_studies_of_every_shipped_configuration_have_rows_that_differ(
    name: str, path: Path, without_data: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_LIFT_DATA", str(tmp_path))
    source = ConfigSource(path)
    _, rows = studies.plan_study(source, find_study(name, source.load()))
    assert rows[0].entry.name == OWN and rows[0].source == source
    assert len({row.label for row in rows}) == len(rows) > 1
    assert len({(row.entry.name, repr(row.source.load())) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("study", "override", "labels"),
    [
        ("encoders", "pretraining.enabled=false", ["causal, not trained", "causal, pretrained"]),
        ("drift", "pretraining.enabled=false", ["as configured", "popularity"]),
        ("retrieval", "predictor.contexts=none", ["tf_lift, BM25, contexts: none", "rim, BM25"]),
    ],
)
def test_a_variant_that_is_the_configuration_itself_is_left_out(
    study: str, override: str, labels: list[str], without_data: None
) -> None:
    source = ConfigSource(ROOT / "configs" / "tiny.toml", (override,))
    _, rows = studies.plan_study(source, find_study(study, source.load()))
    assert [row.label for row in rows][:2] == labels


def test_masked_rows_are_asked_without_the_next_item() -> None:
    settings = ("pretraining.next_item=true", "predictor.next_item_logit=true")
    source = ConfigSource(ROOT / "configs" / "tiny.toml", settings)
    for variant in find_study("encoders", source.load()).variants:
        source.with_settings(variant.settings)
        is_masked = variant.settings.get("pretraining.targets") == "masked"
        assert is_masked == (variant.settings.get("pretraining.next_item") is False)
        assert is_masked == ("at masked rows" in variant.label or variant.label == "bidirectional, not trained")


def test_an_encoder_is_compared_with_one_that_stays_as_drawn_and_one_that_the_predictor_trains() -> None:
    source = ConfigSource(ROOT / "configs" / "tiny.toml", ("predictor.freeze_embeddings=true",))
    trained = {}
    for variant in find_study("encoders", source.load()).variants:
        config = source.with_settings(variant.settings).load()
        trained[variant.label] = (
            config.pretraining.enabled,
            config.predictor.joint,
            config.predictor.freeze_embeddings,
        )
    assert trained["causal, pretrained"] == (True, False, True)
    assert trained["causal, not trained"] == trained["gru, not trained"] == (False, False, True)
    assert trained["causal, trained with the predictor alone"] == (False, True, False)


@pytest.mark.parametrize("is_enabled", [False, True])
@pytest.mark.parametrize("freezes", [False, True])
def test_encoders_of_a_joint_configuration_have_names_of_their_own(
    is_enabled: bool, freezes: bool, without_data: None
) -> None:
    overrides = (
        "predictor.joint=true",
        f"pretraining.enabled={str(is_enabled).lower()}",
        f"predictor.freeze_embeddings={str(freezes).lower()}",
    )
    source = ConfigSource(ROOT / "configs" / "tiny.toml", overrides)
    _, rows = studies.plan_study(source, find_study("encoders", source.load()))
    assert len({row.label for row in rows}) == len(rows)
    for row in rows[1:]:
        assert row.source.load().predictor.joint == ("trained with the predictor" in row.label)


def test_mask_ratios_are_of_pretraining() -> None:
    config = ConfigSource(ROOT / "configs" / "tiny.toml", ("pretraining.enabled=false",)).load()
    with pytest.raises(ValueError, match=r"needs pretraining\. Received: pretraining\.enabled = false"):
        find_study("mask_ratio", config)


def test_the_situation_needs_its_tables() -> None:
    source = ConfigSource(ROOT / "configs" / "tiny.toml")
    with pytest.raises(ValueError, match=r"needs the tables of transitions\. Received: situation\.tables = false"):
        find_study("situation", source.load())
    with_tables = ConfigSource(source.path, ("situation.tables=true", "situation.relations=all"))
    labels = [variant.label for variant in find_study("situation", with_tables.load()).variants]
    assert labels == ["relations: all", "both", "future", "past", "any", "none"]


@pytest.mark.parametrize("has_overlap", [False, True])
def test_neighbours_by_overlap_are_counted_and_encoded(has_overlap: bool, without_data: None) -> None:
    source = ConfigSource(ROOT / "configs" / "tiny.toml", (f"situation.overlap={str(has_overlap).lower()}",))
    _, rows = studies.plan_study(source, find_study("overlap", source.load()))
    read = {
        row.label: (row.source.load().situation.overlap, row.source.load().situation.encoded_neighbours) for row in rows
    }
    other = {"no neighbours by overlap": (False, 0)} if has_overlap else {"neighbours by overlap": (True, 0)}
    assert read == {"as configured": (has_overlap, 0), **other, "and 4 encoded futures": (True, 4)}


def test_the_next_item_is_asked_with_gap_and_user_apart(without_data: None) -> None:
    source = ConfigSource(ROOT / "configs" / "tiny.toml")
    with pytest.raises(ValueError, match=r"Received: pretraining\.enabled = true, pretraining\.next_item = false"):
        find_study("next_item", source.load())
    switches = ("pretraining.next_item=true", "pretraining.next_item_user=true", "predictor.next_item_logit=true")
    asked = ConfigSource(source.path, switches)
    _, rows = studies.plan_study(asked, find_study("next_item", asked.load()))
    sections = {row.label: row.source.load().pretraining for row in rows}
    assert {label: (one.next_item, one.next_item_gap, one.next_item_user) for label, one in sections.items()} == {
        "next item by: user": (True, False, True),
        "gap and user": (True, True, True),
        "gap": (True, True, False),
        "neither": (True, False, False),
        "no next item": (False, False, False),
    }


def test_rows_are_chosen_by_their_labels(without_data: None) -> None:
    source = ConfigSource(ROOT / "configs" / "tiny.toml")
    study = find_study("contexts", source.load())
    own, *others = [row.label for row in studies.plan_study(source, study)[1]]
    assert others == ["history", "future", "none"]
    _, rows = studies.plan_study(source, study, ["none", "history"])
    assert [row.label for row in rows] == [own, "history", "none"]
    with pytest.raises(ValueError, match=r"contexts: both; history; future; none\. Received: past\."):
        studies.plan_study(source, study, ["none", "past"])


def test_rows_stand_at_their_values_or_at_what_they_cost() -> None:
    config = ConfigSource(ROOT / "configs" / "tiny.toml").load()
    study = find_study("neighbours", config)
    labels = [variant.label for variant in study.variants]
    places = studies._find_places(study, dict.fromkeys(labels[:3], {}))
    assert places == {label: float(label.removeprefix("K = ")) for label in labels[:3]} and len(places) == 3
    rows = {"tf_lift": {"microseconds": 30.0}, "rim": {"microseconds": None}}
    assert studies._find_places(find_study("inference", config), rows) == {"tf_lift": 30.0}
    assert studies._find_places(find_study("contexts", config), rows) == {}


def test_an_unknown_study_is_named_with_those_there_are() -> None:
    config = ConfigSource(ROOT / "configs" / "tiny.toml").load()
    with pytest.raises(ValueError, match=r"one of encoders, .*drift\. Received: 'tables'"):
        find_study("tables", config)


def test_ages_are_quarters_of_the_time_since_the_pool_ends(tiny: Any) -> None:
    dataset = tiny.dataset()
    found = read_evaluation_set(Workspace(dataset.config), BY_AGE)
    quarters = {heading: chosen for heading, chosen in found.columns.items() if heading != POOLED}
    assert len(quarters) == 4
    assert (np.sum(list(quarters.values()), axis=0) == 1).all()
    ends = [float(heading.split()[4]) for heading in quarters]
    assert ends == sorted(ends) and float(next(iter(quarters)).split()[2]) >= 0


def test_another_train_window_is_another_thing_to_learn_from(tiny: Any) -> None:
    found = [
        read_evaluation_set(Workspace(tiny.dataset(*overrides).config))
        for overrides in ((), ("retrieval.num_neighbours=2",), ("split.train_rate=0.5",))
    ]
    assert len({evaluation.candidates_hash for evaluation in found}) == 1
    learnt_from = [evaluation.learnt_from for evaluation in found]
    assert learnt_from[0] == learnt_from[1] != learnt_from[2] and learnt_from[0][0] > learnt_from[2][0] > 0


def test_a_session_starts_with_who_comes_back_or_is_new(tiny: Any) -> None:
    dataset = tiny.dataset()
    log, user = dataset.log, dataset.config.schema.user_index
    found = BY_START.make(dataset, np.arange(len(log)))
    for row in range(len(log)):
        earlier = log.time[(log.fields[:, user] == log.fields[row, user]) & (log.time < log.time[row])]
        is_back = len(earlier) > 0 and log.time[row] - earlier.max() > 6 * 3600
        assert (found["no earlier event"][row], found["back after 6 h"][row]) == (len(earlier) == 0, is_back)
    assert all(chosen.any() for chosen in found.values())
    assert read_evaluation_set(Workspace(dataset.config), BY_START).slicing.heading == "start"


@pytest.mark.parametrize("kind", ["none", "rim"])
def test_items_are_told_apart_by_their_earlier_rows(tiny: Any, kind: str) -> None:
    dataset = tiny.dataset(*(tiny.rim if kind == "rim" else ()))
    assert dataset.log.synthetic.any() == (kind == "rim")
    schema, rows = dataset.config.schema, dataset.log
    found = read_evaluation_set(Workspace(dataset.config), BY_ITEM_ROWS)
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    targets = np.concatenate([batch["row"].numpy() for batch in read_examples(dataset, "test", spec, 64)])
    items = rows.fields[:, schema.item_index]
    counts = np.array(
        [((items == items[row]) & (rows.time < rows.time[row]) & ~rows.synthetic).sum() for row in targets]
    )
    expected = {
        "under 5 rows": counts < 5,
        "5 to 49 rows": (counts >= 5) & (counts < 50),
        "50 rows and more": counts >= 50,
    }
    assert sum(chosen.any() for chosen in expected.values()) > 1  # or the columns would tell nothing
    assert found.columns.keys() == {POOLED} | {heading for heading, chosen in expected.items() if chosen.any()}
    for heading, chosen in found.columns.items():
        np.testing.assert_array_equal(chosen, expected.get(heading, np.ones(len(targets), bool)))


def test_a_study_is_run_and_reported(new_tiny: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    log = new_tiny()
    flags = ["--study", "contexts", "--config", str(log.toml), "--quick", "--output", str(log.folder / "out")]
    arguments = studies.parse_flags([*flags, "--set", "name=studied", "--seeds", "3,4", "--rows", "none; history"])
    summary = studies.run(arguments)
    studies.command.finish(summary, Path(arguments.output), "study_contexts", summary["title"])
    (group,) = json.loads((log.folder / "out" / "study_contexts.json").read_text())["groups"]
    assert list(group["rows"]) == ["contexts: both", "history", "none"] and not group["faults"]
    assert set(group["comparison"]["gains"]) == {"history", "none"}
    assert all(row["seeds"] == [3] and row["microseconds"] > 0 for row in group["rows"].values())
    printed = " ".join(capsys.readouterr().out.split())
    assert "What contexts: both gains over" in printed and "best peer" not in printed
    (plot,) = (log.folder / "out").glob("*.png")
    assert plot.name == "study_contexts-studied_contexts_of_the_target_s_neighbours.png"
