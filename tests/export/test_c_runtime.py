"""The exported graph in TensorFlow's C runtime: it loads and answers without Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.c_runtime.build import build_c_runner
from benchmarks.c_runtime.request_file import write_request_file
from benchmarks.c_runtime.run import run_c_runner
from export import saved_model
from export.stock_ops import check_stock_ops
from tf_lift import train
from tf_lift.workspace import Workspace

TEXTS = ["", "é", "\n\0x", "a text too long to lie inside of a TF_TString itself"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler `cc` in PATH")
    return build_c_runner(tmp_path_factory.mktemp("c_runtime"))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signature `weigh`: length of each text in bytes + weight / 4, the weights from a table that an asset fills."""
    folder = tmp_path_factory.mktemp("small_model")
    (folder / "weights.txt").write_text("1\n3\n", encoding="utf-8")
    module = tf.Module()
    initializer = tf.lookup.TextFileInitializer(
        str(folder / "weights.txt"),
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
        tf.int64,
        tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    module.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.string, "texts"), tf.TensorSpec([None], tf.int64, "rows")]
    )
    def weigh(texts: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        weights = tf.cast(module.table.lookup(rows), tf.float32)[:, tf.newaxis]
        lengths = tf.strings.length(texts)
        return {"probabilities": tf.cast(lengths, tf.float32) + weights / 4.0, "lengths": lengths}

    module.weigh = weigh
    tf.saved_model.save(module, str(folder / "1"), signatures={"weigh": weigh})
    return folder / "1"


def test_the_program_links_tensorflow_and_no_python(program: Path) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("no `ldd` in PATH")
    linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line.split()[0] for line in linked]
    assert "libtensorflow_cc.so.2" in names and not [name for name in names if "python" in name]


def test_strings_and_numbers_arrive_whole(program: Path, small_model: Path) -> None:
    inputs = {"texts": np.array([TEXTS, TEXTS[::-1]], object), "rows": np.array([1, 7])}
    lengths = np.array([len(text.encode()) for text in TEXTS])
    answer = run_c_runner(program, small_model, "weigh", inputs, repeats=3)
    np.testing.assert_array_equal(answer.values.reshape(2, 4), [lengths + 0.75, lengths[::-1] - 0.25])
    assert answer.milliseconds.shape == (3,) and (answer.milliseconds > 0).all()
    assert not run_c_runner(program, small_model, "weigh", inputs).milliseconds.size


def test_wrong_requests_are_refused(program: Path, small_model: Path, tmp_path: Path) -> None:
    inputs = {"texts": np.array([["a"]], object), "rows": np.array([1])}
    with pytest.raises(ValueError, match=r"one of the model: .*'weigh'\]. Received: 'rank'"):
        write_request_file(tmp_path / "request", small_model, "rank", inputs)
    with pytest.raises(ValueError, match=r"signature 'weigh': \['rows', 'texts'\]. Received: \['texts'\]"):
        write_request_file(tmp_path / "request", small_model, "weigh", {"texts": inputs["texts"]})
    with pytest.raises(ValueError, match=r"output must be one of signature 'weigh': .*Received: 'mask'"):
        write_request_file(tmp_path / "request", small_model, "weigh", inputs, output="mask")
    with pytest.raises(
        ValueError, match=r"C runtime. Received: exit code 1 from .*/1: the output must be float32. Export"
    ):
        run_c_runner(program, small_model, "weigh", inputs, output="lengths")
    with pytest.raises(ValueError, match=r"Received: exit code 1 from .*: running the model: .*Incompatible shapes"):
        run_c_runner(
            program, small_model, "weigh", inputs | {"rows": np.array([1, 2, 3]), "texts": np.zeros((2, 1), "S1")}
        )
    (small_model.parent / "none").mkdir()
    shutil.copy(small_model / "saved_model.pb", small_model.parent / "none")
    with pytest.raises(ValueError, match=r"Received: exit code 1 from .*: loading the model: "):
        run_c_runner(program, small_model.parent / "none", "weigh", inputs)


@pytest.mark.slow
def test_raw_ids_are_ranked_as_in_python(program: Path, tiny: Any) -> None:
    config = tiny.dataset("pretraining.enabled=false").config
    train.run(config, ["pretrain", "encode", "fit"])
    folder = saved_model.run(Workspace(config))
    check_stock_ops(folder)
    users = [f"u{user}" for user in range(0, 40, 5)] + ["nobody"]
    request = {
        "user": np.array(users, object),
        "candidates": np.array(
            [[f"i{(row + 3 * column) % 33}" for column in range(7)] + [""] for row in range(len(users))], object
        ),
        "time": 1_500_000_000 + 3600 * np.arange(100, 100 + 25 * len(users), 25),
        "channel": np.array([f"c{row % 4}" for row in range(len(users))], object),
    }
    rank = tf.saved_model.load(str(folder)).signatures["rank_known_user"]
    expected = rank(
        **{name: tf.constant(values.tolist()) for name, values in request.items() if name != "time"},
        time=request["time"],
    )
    probabilities = expected["probabilities"].numpy()
    assert len(np.unique(probabilities)) > len(users) and not probabilities[:, -1].any()
    answer = run_c_runner(program, folder, "rank_known_user", request, repeats=2)
    np.testing.assert_allclose(answer.values, probabilities.ravel(), rtol=0, atol=1e-6)
