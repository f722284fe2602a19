"""Two replicas on logical CPU devices reach what one device does. Each case is a process of its own, as devices are split at the start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Training
from tf_lift.strategy import build_strategy, worker_index

_REPOSITORY = Path(__file__).resolve().parents[2]

_TRAIN = """
import json, sys
import numpy as np
from tf_lift import train
from tf_lift.config import load_config
from tf_lift.workspace import Workspace
config = load_config(sys.argv[1], sys.argv[3:])
train.run(config, ["pretrain", "encode", "fit"])
import tensorflow as tf
folder, arrays, devices = Workspace(config).run_dir, {}, len(tf.config.list_logical_devices("CPU"))
for stage in ("pretrain", "fit"):
    history = json.loads((folder / stage / "history.json").read_text())
    arrays |= {f"{stage}/history/{name}": values for name, values in history.items()}
    reader = tf.train.load_checkpoint(str(folder / stage / "weights"))
    arrays |= {
        f"{stage}/{name}": reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.endswith("VARIABLE_VALUE") and "optimizer" not in name and "keras_api" not in name and "metrics" not in name
    }
np.savez(sys.argv[2], devices=devices, **arrays)
"""


def train_in_new_process(toml: Path, answers: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(_REPOSITORY)}
    command = [sys.executable, "-c", _TRAIN, str(toml), str(answers), *overrides]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=answers.parent)


@pytest.mark.slow
def test_two_replicas_reach_the_losses_and_weights_of_one_device(tiny: Any, tmp_path: Path) -> None:
    """With batches of 48: the last of an epoch is partial in both stages."""
    overrides = tiny.overrides("training.batch_size=48", "pretraining.batch_size=48", "pretraining.num_epochs=2")
    dataset = tiny.dataset("training.batch_size=48", "pretraining.batch_size=48", "pretraining.num_epochs=2")
    counts = json.loads((dataset.dataset_dir / "manifest.json").read_text(encoding="utf-8"))["counts"]
    assert counts["train_targets"] % 48 and counts["validation_targets"] % 48
    cases = {
        "one": ["run=one"],
        "two": ["run=two", "training.strategy=mirrored", "training.num_logical_devices=2"],
    }
    processes = {
        name: train_in_new_process(tiny.toml, tmp_path / f"{name}.npz", *overrides, *extra)
        for name, extra in cases.items()
    }
    for process in processes.values():
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    one, two = (np.load(tmp_path / f"{name}.npz") for name in cases)
    assert (int(one["devices"]), int(two["devices"])) == (1, 2)
    assert sorted(one.files) == sorted(two.files) and len(one.files) > 60
    for name in set(one.files) - {"devices"}:
        np.testing.assert_allclose(two[name], one[name], atol=2e-3 if "auc" in name else 3e-4, err_msg=name)


@pytest.mark.slow
def test_a_later_stage_alone_gets_its_devices(tiny: Any, tmp_path: Path) -> None:
    """After a kill while encoding, `encode` is the first stage to run, and `fit` still needs the CPU split in two."""
    tiny.trained()
    overrides = [*tiny.overrides(), "run=resumed", "training.strategy=mirrored", "training.num_logical_devices=2"]
    source = Path(tiny.load(*overrides).workspace) / tiny.load(*overrides).name
    (source / "resumed").mkdir()
    (source / "resumed" / "pretrain").symlink_to(source / "run" / "pretrain")
    process = train_in_new_process(tiny.toml, tmp_path / "resumed.npz", *overrides)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert int(np.load(tmp_path / "resumed.npz")["devices"]) == 2


def test_the_default_is_the_default_strategy() -> None:
    assert build_strategy(Training()).num_replicas_in_sync == 1


def test_devices_asked_for_too_late_are_an_error() -> None:
    tf.zeros(1)  # TensorFlow is in use now
    with pytest.raises(
        ValueError, match=r"split into logical devices before.*num_logical_devices = 3, with 1 already. Start a new"
    ):
        build_strategy(Training(strategy="mirrored", num_logical_devices=3))


def test_workers_need_their_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_index(Training()) == 0
    workers = Training(strategy="multi_worker")
    for content in ("", "{}", '{"cluster": {"worker": []}}'):
        monkeypatch.setenv("TF_CONFIG", content)
        with pytest.raises(ValueError, match="needs TF_CONFIG with `cluster` and `task`"):
            worker_index(workers)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
    assert worker_index(workers) == 1
