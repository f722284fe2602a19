"""The stage `pretrain`: its learning rate."""

from collections.abc import Callable
from typing import Any

from tf_lift import pretrain
from tf_lift.workspace import Workspace


def test_a_cosine_ends_with_the_last_step(tiny: Any, check_decay: Callable[..., None]) -> None:
    settings = ("learning_rate_decay=cosine", "num_epochs=2", "batch_size=48", "patience=1")
    config = tiny.dataset(*(f"pretraining.{setting}" for setting in settings)).config
    check_decay(pretrain, lambda: pretrain.run(Workspace(config)), config.pretraining.learning_rate)
