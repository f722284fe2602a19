"""Preprocesses an interaction log: `python -m beam.preprocess --config configs/X.toml`."""

import argparse
import difflib
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from tqdm import tqdm

from tf_lift.config import Config, load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.data.dataset_info import Boundaries, build_match_sets
from tf_lift.workspace import Workspace

from . import log_steps
from .field_columns import find_field_columns
from .files import expand_paths
from .local_runner import turn_off_flush_by_clock
from .opened_dataset import forget_run
from .pipeline import build_pipeline
from .pipeline_inputs import PipelineInputs, PreviousDataset
from .storage import DatasetFolder

logger = logging.getLogger("beam.preprocess")

_FOLDERS = ("vocabulary", "posting_lists", "examples", "rejected", "facts")
_TEXT_BYTES_A_ROW = 24  # a short line of user, item, label and time, to guess the number of rows by
_COMPRESSION = 4


def run(
    config: Config,
    beam_arguments: Sequence[str] = (),
    force: bool = False,
    staging: str = "",
    append: Sequence[str] = (),
) -> dict[str, Any]:
    """Preprocesses a log into the configuration's data set, unless it is there and fresh.

    Args:
        config: the configuration.
        beam_arguments: options of the runner, such as `--runner=DataflowRunner`.
        force: True: write it again even if it is fresh.
        staging: folder that every worker can reach, such as gs://BUCKET/PATH, where the data set is written before it is fetched into
            the workspace; "": the workspace is such a folder.
        append: files or globs of new interactions, among the configuration's; all later than those of the present data set, which
            is taken further. Empty: all files are read.

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
    new_paths = tuple(expand_paths(append)) or log_paths
    if append and "://" in staging:
        raise ValueError(
            "Appending reads the present data set in the workspace, which workers elsewhere cannot. Received: --append with "
            f"--staging {staging}. Append on this machine, or run without --append."
        )
    previous = _open_previous(workspace, log_paths, new_paths, inputs_seen) if append else None
    manifest: dict[str, Any] = {"inputs": inputs_seen}
    with workspace.writing("dataset", manifest) as folder:
        for name in _FOLDERS:
            (folder / name).mkdir()
        inputs = _build_inputs(config, log_paths, new_paths, previous, staging, folder)
        try:
            _run_pipeline(inputs, beam_arguments)
            inputs.folder.fetch_all(folder)
        finally:
            _leave(inputs, folder)
        manifest.update(_collect_facts(folder / "facts"))
        check_counts(manifest["counts"])
    logger.info("preprocess: wrote %s", workspace.dataset_dir)
    return manifest


def _leave(inputs: PipelineInputs, folder: Path) -> None:
    """Fetches the rejected rows, to which a message may point, and frees and removes what only the run needed."""
    for name in inputs.folder.list("rejected/*"):
        if not (folder / name).is_file():
            shutil.copy(inputs.folder.fetch(name), folder / name)
    forget_run(inputs.run_token)
    log_steps.forget_run(inputs.run_token)
    inputs.folder.forget_cache()
    if inputs.folder.local_dir != folder.resolve():
        inputs.folder.remove()


def _build_inputs(
    config: Config,
    log_paths: tuple[str, ...],
    new_paths: tuple[str, ...],
    previous: PreviousDataset | None,
    staging: str,
    folder: Path,
) -> PipelineInputs:
    """What the pipeline starts from, writing to a folder of the workspace or to one of its own below the staging folder."""
    token = uuid.uuid4().hex
    return PipelineInputs(
        config,
        find_field_columns(config),
        log_paths,
        new_paths,
        tuple(tuple(expand_paths(table.paths)) for table in config.source.attributes),
        DatasetFolder(f"{staging.rstrip('/')}/{config.name}-{token}" if staging else str(folder.resolve())),
        str(folder.resolve()),
        _is_grouped(config, log_paths),
        previous,
        token,
    )


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


def _open_previous(
    workspace: Workspace, log_paths: Sequence[str], new_paths: Sequence[str], inputs_seen: Mapping[str, str]
) -> PreviousDataset:
    """The present data set, if new files can be appended to it."""
    config, manifest = workspace.config, workspace.check_fresh("dataset")
    if config.split.mode != "rolling" or config.negatives.protocol == "rim":
        raise ValueError(
            "Appending needs examples that later interactions leave as they are: `split.mode = \"rolling\"` and no protocol 'rim'. "
            f"Received: {config.split.mode!r} and {config.negatives.protocol!r}. Run without --append."
        )
    unknown = set(new_paths) - set(log_paths)
    if unknown:
        raise ValueError(
            "Appended files must be among those that `source.paths` matches, so that a later full run reads the same. Received: "
            f"{', '.join(sorted(unknown))}, and source.paths = {list(config.source.paths)}."
        )
    hashes = list(inputs_seen.values())[: len(log_paths)]
    kept = [
        (os.path.basename(path), hash_) for path, hash_ in zip(log_paths, hashes, strict=True) if path not in new_paths
    ]
    num_tables = len(inputs_seen) - len(log_paths)
    before = [(name.split(":", 1)[1], hash_) for name, hash_ in manifest["inputs"].items()]
    before = before[: len(before) - num_tables]
    if kept != before:
        raise ValueError(
            "The files that are not appended must be those that the data set was made from. Received: "
            f"{[name for name, _ in kept]} now and {[name for name, _ in before]} before, or other content. Run without --append."
        )
    return PreviousDataset(
        DatasetFolder(str(workspace.dataset_dir.resolve())), manifest["counts"], Boundaries(**manifest["boundaries"])
    )


def _is_grouped(config: Config, log_paths: Sequence[str]) -> bool:
    """Whether targets and posting lists meet by key: as configured, or by a guess at the lists' size from the files'."""
    schema, pipeline = config.schema, config.pipeline
    match_sets = build_match_sets(schema)
    if pipeline.join == "grouped" and not match_sets.is_complete:
        raise ValueError(
            f'`pipeline.join = "grouped"` needs posting lists for all sets of query fields. Received: {len(schema.query_indices)} '
            'query fields, of whose sets only some have lists. Use "broadcast", or set `query = false` on some of the fields.'
        )
    if pipeline.join != "auto" or not match_sets.is_complete:
        return pipeline.join == "grouped"
    num_bytes = sum(
        metadata.size_in_bytes * (_COMPRESSION if path.endswith((".gz", ".bz2", ".xz", ".zst", ".parquet")) else 1)
        for path in log_paths
        for metadata in FileSystems.match([path])[0].metadata_list
    )
    bytes_a_row = 6 * len(match_sets) + 4 * len(schema) + 16
    return num_bytes / _TEXT_BYTES_A_ROW * bytes_a_row > pipeline.broadcast_gib * 2**30


def _run_pipeline(inputs: PipelineInputs, beam_arguments: Sequence[str]) -> None:
    finished = threading.Event()
    watcher = threading.Thread(target=_report_progress, args=(inputs, finished), daemon=True)
    watcher.start()
    try:
        root = beam.Pipeline(options=PipelineOptions(list(beam_arguments), save_main_session=False))
        build_pipeline(root, inputs)
        turn_off_flush_by_clock()
        result = root.run()
        result.wait_until_finish()
    except (RuntimeError, ValueError, DataflowRuntimeException) as error:
        message = _find_message(error)
        if not message:
            raise
        raise ValueError(message) from error
    finally:
        finished.set()
        watcher.join()
    counters = result.metrics().query(MetricsFilter().with_namespace("retrieval"))["counters"]
    totals: dict[str, int] = {}
    for counter in counters:  # a name may be counted by several steps
        name = counter.key.metric.name
        totals[name] = totals.get(name, 0) + (counter.committed or counter.attempted)
    logger.info("retrieval: %s", ", ".join(f"{name} {total:,}" for name, total in sorted(totals.items())))


def _find_message(error: Exception) -> str:
    """The message of a step's ValueError, without Beam's addition; "" if it failed with another error, a fault of ours.

    A step in this process raises it; a worker's comes back as the text of a traceback that ends with it.
    """
    text = str(error)
    if not isinstance(error, ValueError):
        errors = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception)): (.*)$", text, re.MULTILINE)
        text = errors[-1][1] if errors and errors[-1][0] == "ValueError" else ""
    return text.split(" [while running")[0]


def _report_progress(inputs: PipelineInputs, finished: threading.Event) -> None:
    """Logs each step's counts as they appear, and shows a bar while examples are built, if this machine sees the files."""
    if not inputs.folder.is_local:
        return
    facts_dir = Path(inputs.folder.url, "facts")
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
    parser.add_argument(
        "--staging",
        default="",
        help="folder that every worker can reach, such as gs://BUCKET/PATH, for runners on other machines",
    )
    parser.add_argument(
        "--append",
        nargs="+",
        default=[],
        metavar="NEW_FILES",
        help="read these files of source.paths alone and add them to the data set",
    )
    parser.add_argument("--force", action="store_true", help="write the data set again even if it is up to date")
    flags, others = parser.parse_known_args(arguments)
    for option in (other.split("=")[0] for other in others if other.startswith("--")):
        near = difflib.get_close_matches(
            option, ("--append", "--config", "--set", "--force", "--staging"), n=1, cutoff=0.75
        )
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
        run(load_config(flags.config, flags.set), beam_arguments, flags.force, flags.staging, flags.append)
    except ValueError as error:
        sys.exit(f"preprocess: {error}")


if __name__ == "__main__":
    main()
