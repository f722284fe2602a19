"""Preprocesses an interaction log: `python -m beam.preprocess --config configs/X.toml`."""

import argparse
import difflib
import hashlib
import json
import logging
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from tqdm import tqdm

from tf_lift.config import Config, load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.workspace import Workspace

from .example_steps import forget_run
from .field_columns import find_field_columns
from .files import expand_paths
from .pipeline import build_pipeline
from .pipeline_inputs import PipelineInputs

logger = logging.getLogger("beam.preprocess")

_FOLDERS = ("vocabulary", "posting_lists", "examples", "rejected", "facts")


def run(config: Config, beam_arguments: Sequence[str] = (), force: bool = False) -> dict[str, Any]:
    """Preprocesses a log into the configuration's data set, unless it is there and fresh.

    Args:
        config: the configuration.
        beam_arguments: options of the runner, such as `--runner=DataflowRunner`.
        force: True: write it again even if it is fresh.

    Returns:
        The manifest.

    Raises:
        ValueError: bad input; the message says which.
    """
    workspace = Workspace(config)
    log_paths = tuple(expand_paths(config.source.paths))
    inputs_seen = _describe_files(
        [*log_paths, *(path for table in config.source.attributes for path in expand_paths(table.paths))]
    )
    existing = workspace.read_manifest("dataset")
    if not force and existing and workspace.is_fresh("dataset") and existing["inputs"] == inputs_seen:
        logger.info("preprocess: %s is up to date", workspace.dataset_dir)
        return existing
    manifest: dict[str, Any] = {"inputs": inputs_seen}
    with workspace.writing("dataset", manifest) as folder:
        for name in _FOLDERS:
            (folder / name).mkdir()
        inputs = PipelineInputs(
            config,
            find_field_columns(config),
            log_paths,
            tuple(tuple(expand_paths(table.paths)) for table in config.source.attributes),
            folder.resolve(),
            uuid.uuid4().hex,
        )
        try:
            _run_pipeline(inputs, beam_arguments)
        finally:
            forget_run(inputs.run_token)
        manifest.update(_collect_facts(inputs.facts_dir))
        check_counts(manifest["counts"])
    logger.info("preprocess: wrote %s", workspace.dataset_dir)
    return manifest


def check_counts(counts: dict[str, int]) -> None:
    """Checks that every row of the input is accounted for.

    Raises:
        ValueError: the counts do not add up, which would be a fault of the pipeline.
    """
    left_out = sum(count for name, count in counts.items() if name.startswith("left_out"))
    windows = ("pool", "train", "validation", "test")
    sums = {
        "read = kept + rejected + left out": (counts["read"], counts["kept"] + counts["rejected"] + left_out),
        "rows = kept + synthetic": (counts["rows"], counts["kept"] + counts["synthetic"]),
        "kept = pool + train + validation + test": (counts["kept"], sum(counts[f"{name}_window"] for name in windows)),
    }
    for split in windows[1:]:
        parts = [counts[f"{split}_{part}"] for part in ("targets", "not_sampled", "new_item", "repeat")]
        sums[f"{split} window = targets + not sampled + new item + repeat"] = (counts[f"{split}_window"], sum(parts))
        sums[f"{split} examples = targets"] = (counts.get(f"{split}_examples", 0), counts[f"{split}_targets"])
    for rule, (received, expected) in sums.items():
        if received != expected:
            raise ValueError(
                f"The counts of the data set must add up: {rule}. Received: {received:,} and {expected:,}."
            )


def _run_pipeline(inputs: PipelineInputs, beam_arguments: Sequence[str]) -> None:
    finished = threading.Event()
    watcher = threading.Thread(target=_report_progress, args=(inputs.facts_dir, finished), daemon=True)
    watcher.start()
    try:
        with beam.Pipeline(options=PipelineOptions(list(beam_arguments), save_main_session=False)) as root:
            build_pipeline(root, inputs)
    except (RuntimeError, ValueError) as error:
        message = _find_message(error)
        if not message:
            raise
        raise ValueError(message) from error
    finally:
        finished.set()
        watcher.join()


def _find_message(error: RuntimeError | ValueError) -> str:
    """The message of a step's ValueError, without Beam's addition; "" if it failed with another error, a fault of ours.

    A step in this process raises it; a worker's comes back as the text of a traceback that ends with it.
    """
    text = str(error)
    if not isinstance(error, ValueError):
        errors = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception)): (.*)$", text, re.MULTILINE)
        text = errors[-1][1] if errors and errors[-1][0] == "ValueError" else ""
    return text.split(" [while running")[0]


def _report_progress(facts_dir: Path, finished: threading.Event) -> None:
    """Logs each step's counts as they appear, and shows a bar while examples are built."""
    began, seen = time.monotonic(), set()
    bar: tqdm | None = None
    while True:
        last = finished.wait(0.5)
        for path in sorted(facts_dir.glob("*.json"), key=os.path.getmtime):
            if path.name not in seen:
                seen.add(path.name)
                facts = json.loads(path.read_text(encoding="utf-8"))
                logger.info(
                    "%4.0f s  %s: %s",
                    time.monotonic() - began,
                    path.stem,
                    ", ".join(f"{k} {v:,}" for k, v in facts.items()),
                )
                if path.stem == "targets":
                    total = sum(count for name, count in facts.items() if name.endswith("_targets"))
                    bar = tqdm(total=total, unit="target", desc="examples", mininterval=1.0)
        if bar is not None:
            bar.update(sum(int(path.read_text() or 0) for path in facts_dir.glob("*.done")) - bar.n)
        if last:
            break
    if bar is not None:
        bar.close()


def _collect_facts(facts_dir: Path) -> dict[str, Any]:
    """Joins the steps' counts into the manifest, and removes their files."""
    facts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(facts_dir.glob("*.json"))}
    for path in facts_dir.iterdir():
        path.unlink()
    facts_dir.rmdir()
    boundaries = facts.pop("boundaries")
    return {
        "boundaries": boundaries,
        "counts": {name: count for part in facts.values() for name, count in part.items()},
    }


def _describe_files(paths: Sequence[str]) -> dict[str, str]:
    """Name and hash of each input file: what a later run compares."""
    return {f"{index}:{os.path.basename(path)}": _hash_file(path) for index, path in enumerate(paths)}


def _hash_file(path: str) -> str:
    """Hash of a local file's content; on other file systems the checksum that they keep."""
    if not os.path.isfile(path):
        return str(FileSystems.checksum(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def parse_flags(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line; what it does not know goes to Beam."""
    parser = argparse.ArgumentParser(
        prog="python -m beam.preprocess",
        description="Turns an interaction log into TFRecords with precomputed neighbours, with Apache Beam.",
        epilog="Other options go to Beam: --direct_num_workers=2 --direct_running_mode=multi_processing, or "
        "--runner=DataflowRunner --project=... --region=... --temp_location=gs://... The default is one in-memory worker.",
    )
    add_config_flags(parser)
    parser.add_argument("--force", action="store_true", help="write the data set again even if it is up to date")
    flags, others = parser.parse_known_args(arguments)
    for option in (other.split("=")[0] for other in others if other.startswith("--")):
        near = difflib.get_close_matches(option, ("--config", "--set", "--force"), n=1, cutoff=0.75)
        if near:
            parser.error(f"unknown option {option}; did you mean {near[0]}?")
    return flags, others


def main() -> None:
    """The command."""
    flags, beam_arguments = parse_flags()
    # Beam's own notes are for its developers; while it is imported it has made a handler that shows them.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", force=True)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it logs the error that the run ends with anyway
    logger.setLevel(logging.INFO)
    try:
        run(load_config(flags.config, flags.set), beam_arguments, flags.force)
    except ValueError as error:
        sys.exit(f"preprocess: {error}")


if __name__ == "__main__":
    main()
