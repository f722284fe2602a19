"""The stage `fit`: what its embeddings start from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift import fit, train
from tf_lift.config import Config
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor
from tf_lift.models.predictor import Predictor
from tf_lift.pretrain import build_pretrainer
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.workspace import Workspace


def train_predictor(config: Config) -> tuple[Dataset, Predictor]:
    """Runs the stages to `fit`: the data set and the trained predictor."""
    train.run(config, ["pretrain", "encode", "fit"])
    workspace = Workspace(config)
    dataset = open_dataset(workspace)
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    return dataset, read_predictor(workspace, dataset, read_datastore(workspace, dataset), spec)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_frozen_embeddings_that_the_encoder_did_not_train_are_nothing(tiny: Any, is_frozen: bool) -> None:
    switches = ("encoder.user_fields=false", f"predictor.freeze_embeddings={str(is_frozen).lower()}")
    config = tiny.dataset(*switches).config
    _, model = train_predictor(config)
    fields = np.full((1, 2, len(config.schema)), 2, np.int32)
    embedded, pretrained = model.embedding(fields).numpy(), model.encoder.embedding(fields).numpy()
    is_user = np.array([field.entity == "user" for field in config.schema.fields])
    assert is_user.any() and (np.abs(embedded[:, :, is_user]).max() > 0) is not is_frozen
    assert (embedded[:, :, ~is_user] == pretrained[:, :, ~is_user]).all() == is_frozen
    assert np.abs(embedded[:, :, ~is_user]).max() > 1e-3


@pytest.mark.parametrize("share_encoder", [True, False])
def test_embeddings_of_users_that_the_next_item_trained_are_kept(tiny: Any, share_encoder: bool) -> None:
    of_next = ("next_item=true", "next_item_user=true", f"share_encoder={str(share_encoder).lower()}")
    switches = (
        "encoder.user_fields=false",
        "predictor.freeze_embeddings=true",
        *(f"pretraining.{one}" for one in of_next),
    )
    config = tiny.dataset(*switches).config
    assert config.pretrained_indices == (None if share_encoder else config.encoded_indices)
    dataset, model = train_predictor(config)
    tf.keras.utils.set_random_seed(config.seed)
    started = build_pretrainer(dataset, model.datastore).encoder.embedding  # as pretraining started
    user = config.schema.user_index
    users = np.full((1, started.num_ids[user] - FIRST_VALUE_ID, len(config.schema)), FIRST_VALUE_ID, np.int32)
    users[..., user] = np.arange(FIRST_VALUE_ID, started.num_ids[user])
    read, pretrained, drawn = (
        layer(users, [user]).numpy() for layer in (model.embedding, model.encoder.embedding, started)
    )
    assert (read == pretrained).all() == share_encoder and read.any() == share_encoder
    assert (np.abs(pretrained - drawn).max() > 1e-3) == share_encoder


def test_a_cosine_ends_with_the_last_step(tiny: Any, check_decay: Callable[..., None]) -> None:
    settings = ("learning_rate_decay=cosine", "num_epochs=2", "batch_size=48", "patience=1")
    config = tiny.dataset(*(f"training.{setting}" for setting in settings)).config
    train.run(config, ["pretrain", "encode"])
    check_decay(fit, lambda: fit.run(Workspace(config)), config.training.learning_rate)
