"""What int8 states cost: AUC and LogLoss of the trained predictor with the datastore as float16 and as int8.

    python -m benchmarks.state_types --config configs/ml_1m.toml

Needs the data set and the trained run. Protocol: the test split, first to last; every candidate counts.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tf_lift.config import load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import ExampleSpec, build_example_spec
from tf_lift.datastore import Datastore, quantise_states
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor
from tf_lift.metrics import auc, log_loss
from tf_lift.workspace import Workspace

_BATCH_SIZE = 256


def run(workspace: Workspace) -> dict[str, dict[str, float]]:
    """Measures both types.

    Returns:
        For each type: `auc`, `log_loss`, `megabytes` of the states, and `largest_difference` in probability to float16.
    """
    dataset = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    store = read_datastore(workspace, dataset)
    rows, exact = {}, None
    for name, typed in (("float16", store), ("int8", quantise_states(store))):
        labels, probabilities = _predict(workspace, dataset, spec, typed, name)
        exact = probabilities if exact is None else exact
        rows[name] = {
            "auc": auc(labels, probabilities),
            "log_loss": log_loss(labels, probabilities),
            "megabytes": typed.states.dtype.size * typed.states.shape.num_elements() / 1e6,
            "largest_difference": float(np.abs(probabilities - exact).max()),
        }
    return rows


def _predict(
    workspace: Workspace, dataset: Dataset, spec: ExampleSpec, store: Datastore, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of all real candidates of the test split."""
    model = read_predictor(workspace, dataset, store, spec)

    @tf.function(reduce_retracing=True)
    def predict(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slate = dataset.row_references.resolve(spec.parse(serialized))
        probabilities = tf.sigmoid(model(slate, training=False).logits)
        return tf.boolean_mask(slate["label"], slate["mask"]), tf.boolean_mask(probabilities, slate["mask"])

    paths = sorted(tf.io.gfile.glob(dataset.example_pattern("test")))
    batches = tf.data.TFRecordDataset(paths).batch(_BATCH_SIZE)
    answers = [predict(batch) for batch in tqdm(batches, desc=name, unit="batch", mininterval=1.0)]
    labels, probabilities = zip(*answers, strict=True)
    return np.concatenate([part.numpy() for part in labels]), np.concatenate([part.numpy() for part in probabilities])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state_types", description=__doc__.splitlines()[0])
    add_config_flags(parser)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    flags = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        rows = run(Workspace(load_config(flags.config, flags.set)))
    except ValueError as error:
        sys.exit(f"state_types: {error}")
    table = Table(caption="Test split, all candidates; the same weights.")
    for heading in ("states", "AUC", "LogLoss", "MB", "largest difference in probability"):
        table.add_column(heading)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['auc']:.5f}",
            f"{row['log_loss']:.5f}",
            f"{row['megabytes']:.1f}",
            f"{row['largest_difference']:.1e}",
        )
    Console().print(table)
    if flags.json:
        flags.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
