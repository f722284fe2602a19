"""LIFT as printed is the project's predictor with the paper's switches, whatever the configuration says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tf_lift.baselines import lift_printed
from tf_lift.baselines.own_model import override_config
from tf_lift.baselines.ranker_job import RankerJob
from tf_lift.config import Config, load_config
from tf_lift.workspace import Workspace

CONFIGS = Path(__file__).parents[3] / "configs"


def switched(
    monkeypatch: pytest.MonkeyPatch, folder: Path, config: Config, is_pretrained: bool = True, **settings: Any
) -> Config:
    """The configuration that would be trained."""
    given: list[Config] = []
    monkeypatch.setattr(
        lift_printed,
        "score_with_overrides",
        lambda job, keys: given.append(override_config(job.workspace.config, keys)),
    )
    score = lift_printed.score_printed if is_pretrained else lift_printed.score_without_pretraining
    score(RankerJob("lift", Workspace(config), settings, 1, folder, ("test",)))
    return given[0]


@pytest.mark.parametrize(
    ("name", "in_its_mode"),
    [("movietweetings_100k", ["predictor.recency_days=[1, 30]"]), ("ml_1m_rim", []), ("ml_1m_rim_full", [])],
)
def test_switches_are_those_of_the_configurations_named_paper(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, in_its_mode: list[str]
) -> None:
    config = load_config(
        CONFIGS / f"{name}.toml",
        [
            *in_its_mode,
            "pretraining.next_item=true",
            "predictor.next_item_logit=true",
            "predictor.joint=true",
            'situation.relations="all"',
            "situation.overlap=true",
            "situation.encoded_neighbours=4",
            "predictor.standardise=true",
            "predictor.history_statistics=true",
            "pretraining.learning_rate_decay=cosine",
            "training.learning_rate_decay=cosine",
            "encoder.user_fields=false",
            "pretraining.query_share=0.5",
            "pretraining.mask_ratio=0.1",
            "pretraining.next_item_gap=true",
            "pretraining.next_item_user=true",
        ],
    )
    paper = load_config(CONFIGS / f"{name.removesuffix('_full')}_paper.toml")
    found = switched(monkeypatch, tmp_path, config)
    expected = dataclasses.replace(paper.predictor, freeze_embeddings=False)
    assert found.predictor == expected
    unread = dict.fromkeys(("next_item_gap", "next_item_user"), True) | {
        "next_item_weight": found.pretraining.next_item_weight
    }
    assert found.pretraining == dataclasses.replace(
        paper.pretraining, **unread
    )  # of the next item, which is not asked for
    assert (found.encoder.kind, found.encoder.user_fields, found.training.loss) == ("causal", True, "pointwise")
    assert (
        found.transitions == config.transitions and found.situation_features is None
    )  # the same data set, nothing read


def test_without_pretraining_differs_in_that_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ml_1m_rim", "ml_1m_honest"):
        config = load_config(CONFIGS / f"{name}.toml")
        pretrained, plain = (switched(monkeypatch, tmp_path, config, flag) for flag in (True, False))
        assert not plain.pretraining.enabled and pretrained.pretraining.enabled
        assert dataclasses.replace(plain, pretraining=pretrained.pretraining) == pretrained


@pytest.mark.parametrize("name", ["ml_1m_honest", "ml_1m_rim_positives"])
def test_a_pool_of_positives_is_pretrained_with_drawn_items(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    found = switched(monkeypatch, tmp_path, load_config(CONFIGS / f"{name}.toml"))
    assert found.pretraining.targets == "queries" and found.pretraining.negatives_per_row > 0


def test_settings_go_before_switches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = load_config(CONFIGS / "tiny.toml")
    assert switched(monkeypatch, tmp_path, config, **{"training.l2": 0.5}).training.l2 == 0.5
    with pytest.raises(ValueError, match="must read section.key"):
        switched(monkeypatch, tmp_path, config, **{"training.l3": 0.5})
