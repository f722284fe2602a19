"""The stage `pretrain`: its learning rate, and the files that it reads."""

from collections.abc import Callable
from typing import Any

from tf_lift import pretrain, train
from tf_lift.workspace import LOG_FILES, MANIFEST_NAME, Workspace


def test_a_cosine_ends_with_the_last_step(tiny: Any, check_decay: Callable[..., None]) -> None:
    settings = ("learning_rate_decay=cosine", "num_epochs=2", "batch_size=48", "patience=1")
    config = tiny.dataset(*(f"pretraining.{setting}" for setting in settings)).config
    check_decay(pretrain, lambda: pretrain.run(Workspace(config)), config.pretraining.learning_rate)


def test_the_encoder_is_made_of_the_files_that_it_is_fresh_by(new_tiny: Callable[[], Any]) -> None:
    dataset = new_tiny().dataset("pretraining.next_item=true")
    read = {path for pattern in LOG_FILES for path in dataset.dataset_dir.glob(pattern)}
    for path in dataset.dataset_dir.rglob("*"):
        if path.is_file() and path not in read and path.name != MANIFEST_NAME:
            path.unlink()
    train.run(dataset.config, ["pretrain", "encode"])
    assert Workspace(dataset.config).is_fresh("encode")
