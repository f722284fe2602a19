"""Checks an exported model in a fresh process: `python -m export.verify --config configs/X.toml`."""

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_lift.config import load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.data.raw_requests import build_history, build_request
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor
from tf_lift.workspace import Workspace

from .ranking_module import typed_datastore
from .request_examples import build_request_examples
from .stock_ops import check_stock_ops
from .versions import list_versions, read_fingerprint

logger = logging.getLogger("export.verify")

TOLERANCE = 1e-5  # in probability; float32 sums in another order differ by about 1e-7
_NUM_SLATES = 64


def verify(workspace: Workspace, model_dir: Path) -> float:
    """Compares an exported model, loaded in a fresh process without this project's code, with the one in memory.

    Test examples go through `serving_default` as Beam wrote them; through `rank_known_user` as raw ids; through `rank` as raw ids with
    the history that the log has; and their first candidates through `regress`: this is the check against training-serving skew.

    Args:
        workspace: the configuration's folders.
        model_dir: the SavedModel.

    Returns:
        The largest difference in probability.

    Raises:
        ValueError: it exceeds TOLERANCE; or the graph holds an operation that stock TensorFlow has not.
    """
    check_stock_ops(model_dir)
    dataset = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    serialized = _read_serialized(dataset)
    store = typed_datastore(workspace.config, read_datastore(workspace, dataset))
    model = read_predictor(workspace, dataset, store, spec)
    slate = dataset.row_references.resolve(spec.parse(tf.constant(serialized)))
    expected = np.where(slate["mask"], tf.sigmoid(model(slate, training=False).logits), 0.0)
    request = build_request(dataset, slate)
    length = workspace.config.retrieval.context_length
    history = build_history(dataset, slate["history_position"].numpy(), length)
    pairs = build_request_examples(request, workspace.config.schema)
    by_signature: dict[str, Mapping[str, np.ndarray]] = {
        "serving_default": {"examples": np.array(serialized, object)},
        "rank_known_user": request,
        "rank": {**request, **history},
        "regress": {"inputs": np.array(pairs, object)},
    }
    requests = {f"{name}/{key}": values for name, inputs in by_signature.items() for key, values in inputs.items()}
    answers = _run_in_fresh_process(model_dir, requests)
    from_ids = np.where(request["candidates"] != "", expected, 0.0)
    wanted = {"serving_default": expected, "rank_known_user": from_ids, "rank": from_ids, "regress": from_ids[:, 0]}
    differences = {name: float(np.abs(answer - wanted[name]).max()) for name, answer in answers.items()}
    worst = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
    if not differences[worst] <= TOLERANCE:
        raise ValueError(
            f"The exported model must answer as the one in memory does, to {TOLERANCE:.0e}. Received: signature {worst!r} differs by "
            f"{differences[worst]:.2e}. Export again, and report it if it stays."
        )
    return differences[worst]


def _read_serialized(dataset: Dataset) -> list[bytes]:
    paths = sorted(tf.io.gfile.glob(dataset.example_pattern("test")))
    return list(tf.data.TFRecordDataset(paths).take(_NUM_SLATES).as_numpy_iterator())


def _run_in_fresh_process(model_dir: Path, requests: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, **requests)  # type: ignore[arg-type]
        command = [sys.executable, "-c", _FRESH_PROCESS, str(model_dir.resolve()), str(inputs), str(outputs)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if finished.returncode != 0:
            raise ValueError(
                f"The exported model must load and run in a fresh process. Received: {finished.stderr.strip().splitlines()[-1:]} from "
                f"{model_dir}."
            )
        with np.load(outputs) as answers:
            return {name: answers[name] for name in answers.files}


_FRESH_PROCESS = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
requests = np.load(sys.argv[2], allow_pickle=True)
answers = {}
for signature in sorted({name.split("/")[0] for name in requests.files}):
    inputs = {name.split("/")[1]: tf.constant(requests[name].tolist()) if requests[name].dtype == object
              else tf.constant(requests[name]) for name in requests.files if name.startswith(signature + "/")}
    outputs = model.signatures[signature](**inputs)
    answers[signature] = outputs["outputs" if signature == "regress" else "probabilities"].numpy()
np.savez(sys.argv[3], **answers)
"""


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m export.verify",
        description="Reloads an exported model in a fresh process and compares its answers with those of the trained model in memory.",
    )
    add_config_flags(parser)
    parser.add_argument("--version", type=int, help="version folder; default: the newest")
    return parser.parse_args(arguments)


def run(workspace: Workspace, version: int | None = None) -> None:
    """Verifies a version, the newest by default.

    Raises:
        ValueError: there is none, or it answers otherwise than the model in memory.
    """
    versions = list_versions(workspace.models_dir)
    chosen = version if version is not None else max(versions, default=None)
    if chosen is None or chosen not in versions:
        raise ValueError(
            f"A version to verify must be there. Received: {version}; found {versions} in {workspace.models_dir}. "
            "Run `python -m export.saved_model` first."
        )
    folder = workspace.models_dir / str(chosen)
    if read_fingerprint(folder) not in (None, workspace.fingerprint("export")):
        raise ValueError(
            f"Only a version of the present run can be compared with it. Received: version {chosen}, exported from another run. "
            "Run `python -m export.saved_model` for a new version."
        )
    difference = verify(workspace, folder)
    logger.info("verify: version %d answers as the model in memory; largest difference %.1e", chosen, difference)


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    tf.get_logger().setLevel(logging.ERROR)  # Keras' notes on formats that are not used here
    try:
        run(Workspace(load_config(flags.config, flags.set)), flags.version)
    except ValueError as error:
        sys.exit(f"verify: {error}")


if __name__ == "__main__":
    main()
