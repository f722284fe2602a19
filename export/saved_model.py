"""Exports the trained ranker: `python -m export.saved_model --config configs/X.toml`."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tf_lift.config import load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import ExampleSpec, build_example_spec
from tf_lift.datastore import Datastore
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor
from tf_lift.workspace import Workspace

from .ranking_module import RankingModule, served_datastore, served_situation, typed_datastore
from .signatures import build_signatures, set_method_names
from .verify import verify
from .versions import list_versions, read_fingerprint, write_fingerprint
from .warmup import write_warmup

logger = logging.getLogger("export.saved_model")


def run(workspace: Workspace, force: bool = False) -> Path:
    """Exports a new version, unless the newest was made from the present artefacts.

    The version's folder appears in one rename, so a server that watches the models folder never sees half of one.

    Args:
        workspace: the configuration's folders.
        force: True: export a new version in any case.

    Returns:
        The version's folder.

    Raises:
        ValueError: training has not finished, or is stale; or the exported model answers otherwise than the one in memory.
    """
    fingerprint = workspace.fingerprint("export")
    versions = list_versions(workspace.models_dir)
    if versions and not force and read_fingerprint(workspace.models_dir / str(versions[-1])) == fingerprint:
        folder = workspace.models_dir / str(versions[-1])
        logger.info("export: %s is up to date", folder)
        return folder
    dataset = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    version = versions[-1] + 1 if versions else 1
    aside = workspace.models_dir / f"{version}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    store = typed_datastore(workspace.config, read_datastore(workspace, dataset))
    save(workspace, dataset, spec, served_datastore(dataset, store), aside)
    write_fingerprint(aside, fingerprint)
    write_warmup(dataset, aside, workspace.config.name)
    difference = verify(workspace, aside)
    logger.info(
        "export: reloaded in a fresh process; the largest difference to the model in memory is %.1e", difference
    )
    folder = workspace.models_dir / str(version)
    os.rename(aside, folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    per_row, per_pool_row = size / len(dataset.log), size / max(1, len(dataset.posting_lists.rank_to_row))
    logger.info(
        "export: wrote %s, %.1f MB, %.0f bytes a row of the log, %.0f a row of the pool",
        folder,
        size / 1e6,
        per_row,
        per_pool_row,
    )
    return folder


def save(workspace: Workspace, dataset: Dataset, spec: ExampleSpec, datastore: Datastore, folder: Path) -> None:
    """Saves the trained ranker as a SavedModel in a folder.

    Args:
        workspace: the configuration's folders.
        dataset: the data set.
        spec: the examples' definition.
        datastore: what `served_datastore` returned.
        folder: where it is written.
    """
    predictor = read_predictor(workspace, dataset, datastore, spec, served_situation(dataset, datastore))
    with tempfile.TemporaryDirectory() as asset_dir:
        module = RankingModule(dataset, predictor, spec, Path(asset_dir))
        tf.saved_model.save(module, str(folder), signatures=build_signatures(module))
    set_method_names(str(folder))
    size, num_rows = module.posting_lists.num_bytes(), len(dataset.posting_lists.rank_to_row)
    logger.info("export: retrieval tables, %.1f MB, %.0f bytes a row of the pool", size / 1e6, size / max(1, num_rows))


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m export.saved_model",
        description="Exports the trained ranker as a SavedModel with the signatures rank, rank_known_user, explain, classify, regress and "
        "serving_default, and warm-up requests, into a new numeric version folder, and checks it in a fresh process. Run "
        "`python -m tf_lift.train` first.",
    )
    add_config_flags(parser)
    parser.add_argument("--force", action="store_true", help="export a new version even if the newest is up to date")
    return parser.parse_args(arguments)


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    tf.get_logger().setLevel(logging.ERROR)  # Keras' notes on formats that are not used here
    try:
        run(Workspace(load_config(flags.config, flags.set)), flags.force)
    except ValueError as error:
        sys.exit(f"export: {error}")


if __name__ == "__main__":
    main()
