"""What a search may choose, and how it becomes settings and configurations."""

from __future__ import annotations

import tomllib
import typing
from pathlib import Path

import numpy as np
import pytest

from tf_lift.baselines.no_learning import Candidates
from tf_lift.baselines.objective import choose_objective, measure_objective
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.config import Encoder, Predictor, Pretraining, Retrieval, Situation, load_config
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.own_space import build_own_space
from tf_lift.tuning.ranker_tuner import Search, build_oracle
from tf_lift.tuning.search_space import SearchSpace
from tf_lift.workspace import Workspace

TINY = Path(__file__).parents[3] / "configs" / "tiny.toml"
HONEST = ('behaviour={kind="positive_only"}', 'negatives={protocol="honest",per_target=12}')
SPACE = SearchSpace(
    {"on": (True, False), "width": (8, 16), "dims": ((64,), (32, 8)), "only": ("a",), "of_on": (0.1, 0.5)},
    {"on": True, "width": 24, "dims": (32, 8), "only": "a", "of_on": 0.5},
    {"of_on": ("on", True)},
)


def draw(space: SearchSpace, num_trials: int) -> list[dict[str, object]]:
    """Settings of random trials."""
    oracle = build_oracle(Search("random", num_trials, 0, 3), space, choose_objective(make_validation(1)))
    return [space.settings(oracle.populate_space(str(number))["values"]) for number in range(num_trials)]


def make_validation(length: int) -> Candidates:
    labels = np.tile(np.eye(1, length)[0], 4) if length > 1 else np.array([1.0, 0, 1, 0])
    return Candidates(np.zeros((4 * length, 2), np.int32), labels, np.repeat(np.arange(4), length), *[np.zeros(4)] * 3)


def test_settings_are_those_that_are_not_the_defaults() -> None:
    names = [parameter.name for parameter in SPACE.hyperparameters().space]
    assert names == ["on", "width", "dims", "of_on"]  # one value is no choice
    values = {"on": False, "width": 24, "dims": "[64]", "tuner/epochs": 3}
    assert SPACE.settings(values) == {"on": False, "dims": [64]}
    assert SPACE.settings({"dims": "[32, 8]", "of_on": 0.5}) == {}


def test_every_value_is_drawn_and_what_needs_another_only_with_it() -> None:
    drawn = draw(SPACE, 30)
    assert {setting.get("width", 24) for setting in drawn} == {8, 16, 24}
    assert {str(setting.get("dims")) for setting in drawn} == {"None", "[64]"}
    assert not [setting for setting in drawn if setting.get("on") is False and "of_on" in setting]
    assert [setting for setting in drawn if "of_on" in setting]


def test_what_needs_another_needs_what_that_one_needs() -> None:
    needs = {"b": ("a", True), "c": ("b", True)}
    space = SearchSpace({"a": (True, False), "b": (True, False), "c": (1, 2)}, {"a": True, "b": True, "c": 1}, needs)
    drawn = draw(space, 40)
    assert {(one.get("a", True), one.get("b", True), one.get("c", 1)) for one in drawn} == {
        (True, True, 1),
        (True, True, 2),
        (True, False, 1),
        (False, True, 1),
    }


@pytest.mark.parametrize(("value", "names"), [(True, ["c"]), (False, [])])
def test_what_needs_a_setting_that_is_not_searched_is_searched_where_that_one_fits(
    value: bool, names: list[str]
) -> None:
    space = SearchSpace({"p": (value,), "c": (1, 2)}, {"p": value, "c": 1}, {"c": ("p", True)})
    assert [parameter.name for parameter in space.hyperparameters().space] == names


def test_what_does_not_fit_without_another_has_another_value_there() -> None:
    space = SearchSpace(
        {"on": (True, False), "of_on": (1, 2)}, {"on": True, "of_on": 2}, {"of_on": ("on", True)}, {"of_on": 0}
    )
    assert space.settings({"on": False}) == {"on": False, "of_on": 0}
    assert space.settings({"on": True, "of_on": 2}) == {} and space.settings({"on": True, "of_on": 1}) == {"of_on": 1}


def test_a_setting_comes_after_what_it_needs_and_has_a_default() -> None:
    with pytest.raises(ValueError, match="must come after the one that it needs. Received: 'a' before 'b'"):
        SearchSpace({"a": (1, 2), "b": (1, 2)}, {"a": 1, "b": 1}, {"a": ("b", 1)})
    with pytest.raises(ValueError, match="must have a default. Received: none for 'a'"):
        SearchSpace({"a": (1, 2)}, {})


def test_own_space_has_every_switch_and_its_defaults_are_the_configuration_s() -> None:
    config = load_config(TINY)
    space = build_own_space(config)
    sections = {
        "retrieval": Retrieval,
        "encoder": Encoder,
        "pretraining": Pretraining,
        "predictor": Predictor,
        "situation": Situation,
    }
    switches = {
        f"{section}.{name}"
        for section, cls in sections.items()
        for name, hint in typing.get_type_hints(cls).items()
        if hint is bool or typing.get_origin(hint) is typing.Literal
    }
    assert len(switches) > 20 and switches - set(space.choices) == {"situation.tables"}
    for part in ("num_neighbours", "context_length"):
        assert f"retrieval.{part}" in space.choices
    for name, default in space.defaults.items():
        section, _, key = name.partition(".")
        assert getattr(getattr(config, section), key) == default
    assert "training.loss" not in space.choices
    assert "training.loss" in build_own_space(load_config(TINY, HONEST)).choices


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("encoder.kind=bidirectional", "pretraining.targets=masked"),
        HONEST,
        (*HONEST, "pretraining.mask_ratio=0.0", "pretraining.next_item=true", "predictor.next_item_logit=true"),
        ("situation.overlap=true", "situation.encoded_neighbours=2", "encoder.state_dim=30", "encoder.num_heads=3"),
    ],
    ids=str,
)
def test_what_the_own_space_draws_is_a_configuration(overrides: tuple[str, ...]) -> None:
    source = ConfigSource(TINY, overrides)
    for settings in draw(build_own_space(source.load()), 100):
        source.with_settings(settings).load()


def test_another_data_set_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    source = ConfigSource(TINY, (f"workspace={tmp_path}",))
    own = Workspace(source.load())
    same = Workspace(source.with_settings({"predictor.dropout_rate": 0.5, "predictor.hidden_dims": [8, 4]}).load())
    assert same.dataset_dir == own.dataset_dir and same.config.predictor.hidden_dims == (8, 4)
    longer, again = (Workspace(source.with_settings({"retrieval.context_length": length}).load()) for length in (9, 10))
    assert len({own.dataset_dir, longer.dataset_dir, again.dataset_dir}) == 3
    assert longer.root.is_relative_to(own.root)


def test_a_configuration_is_written_as_a_file_that_reads_the_same(tmp_path: Path) -> None:
    source = ConfigSource(
        TINY, ("workspace=somewhere/else", "predictor.dropout_rate=0.1", "predictor.dropout_rate=0.3")
    )
    changed = source.with_settings({"predictor.hidden_dims": [8], "retrieval.idf": "paper", "predictor.joint": True})
    changed.write_toml(tmp_path / "best.toml", "first line\nsecond line")
    text = (tmp_path / "best.toml").read_text(encoding="utf-8")
    assert text.startswith("# first line\n# second line\n")
    assert load_config(tmp_path / "best.toml") == changed.load()
    assert tomllib.loads(text)["predictor"] == {"dropout_rate": 0.3, "hidden_dims": [8], "joint": True}
    with pytest.raises(ValueError, match="must set single values to be written as a file. Received: behaviour="):
        ConfigSource(TINY, HONEST).write_toml(tmp_path / "bad.toml", "words")
    assert not (tmp_path / "bad.toml").exists()


def test_objective_is_log_loss_or_the_place_in_the_slate() -> None:
    single, ranked = make_validation(1), make_validation(12)
    answers = RankerScores(np.array([0.9, 0.2, 0.6, 0.4]), np.zeros(0), True, {}, 0, 0.0)
    assert (choose_objective(single).name, choose_objective(single).direction) == ("LogLoss", "min")
    expected = -np.log([0.9, 0.8, 0.6, 0.6]).mean()
    assert measure_objective(single, answers) == pytest.approx(expected)
    shifted = RankerScores(np.array([9.0, 9.0, 9.0, 9.0]), np.zeros(0), False, {}, 0, 0.0)
    assert measure_objective(single, shifted) == pytest.approx(np.log(2), abs=1e-4)  # Platt's scaling says the rate
    assert (choose_objective(ranked).name, choose_objective(ranked).direction) == ("NDCG@10", "max")
    scores = -np.arange(48.0) % 12  # the positive, first in each slate, has 0; then 11, 10, .. follow
    assert measure_objective(ranked, RankerScores(scores, np.zeros(0), False, {}, 0, 0.0)) == 0.0
    assert measure_objective(ranked, RankerScores(-scores, np.zeros(0), False, {}, 0, 0.0)) == 1.0
