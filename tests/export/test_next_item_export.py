"""The next item in the SavedModel: with an encoder of its own or without, it answers as the model in memory does."""

from typing import Any

import numpy as np
import pytest

from export import saved_model
from tf_lift import train
from tf_lift.data.dataset_files import open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor
from tf_lift.workspace import Workspace

SWITCHES = ("pretraining.next_item=true", "predictor.next_item_logit=true")
CASES = {
    "shared": (
        "pretraining.next_item_samples=8",
        "pretraining.next_item_gap=true",
        "pretraining.next_item_user=true",
        "encoder.embedding_dim=8",  # as wide as a state: tied weights
    ),
    "own_listwise": (
        "pretraining.share_encoder=false",
        "pretraining.next_item_gap=true",
        "pretraining.next_item_user=true",
        "encoder.user_fields=false",
        "training.loss=listwise",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_exported_model_answers_as_the_one_in_memory(tiny: Any, case: str) -> None:
    data = tiny.honest if case == "own_listwise" else ()
    config = tiny.dataset(*data, *SWITCHES, *CASES[case]).config
    train.run(config, ["pretrain", "encode", "fit"])
    workspace = Workspace(config)
    assert saved_model.run(workspace).is_dir()  # it compares every signature's answers
    dataset = open_dataset(workspace)
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    model = read_predictor(workspace, dataset, read_datastore(workspace, dataset), spec)
    (weight,) = [weight for weight in model.weights if "next_item_weight" in weight.name]
    assert abs(float(weight) - 1.0) > 1e-4  # trained
    assert np.abs(model.next_item.head.weights[0]).max() > 1e-3
