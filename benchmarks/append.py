"""What appending costs beside a full run: `python -m benchmarks.append --config configs/ml_1m.toml --shares 0.01,0.1`.

The log is cut by time into an old part and the newest share of it. For each share: a data set of the old part is made, the new
part is appended, and a full run over both must give the same bytes.
"""

import argparse
import dataclasses
import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beam import preprocess
from beam.files import expand_paths, open_file
from tf_lift.config import Config, load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.workspace import Workspace, write_json


def run(config: Config, shares: Sequence[float], folder: Path) -> list[dict[str, Any]]:
    """Measures every share.

    Args:
        config: a configuration in rolling mode whose log is one file of delimited text without a header line.
        shares: shares of the log that are new.
        folder: for the files and the data sets; removed in the end.

    Returns:
        For each share: `share`, `new_rows`, `rows`, seconds `append` and `full`, and whether the data sets are the `same`.
    """
    (path,) = expand_paths(config.source.paths)
    with open_file(path) as file:
        data = file.read()
    separator, place = config.source.separator.encode(), config.source.columns.index(config.source.time)

    def time_of(line: bytes) -> int:
        return int(line.split(separator)[place])

    lines = sorted(data.splitlines(keepends=True), key=time_of)
    results = []
    for share in shares:
        cut = round(len(lines) * (1 - share))
        while (
            lines[cut].split(config.source.separator.encode())[place]
            == lines[cut - 1].split(config.source.separator.encode())[place]
        ):
            cut -= 1  # all interactions of one second on one side
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "log").mkdir(parents=True)
        grown, whole = (_with_log(config, folder, name) for name in ("grown", "whole"))
        (folder / "log" / "old.dat").write_bytes(b"".join(lines[:cut]))
        preprocess.run(grown)
        (folder / "log" / "new.dat").write_bytes(b"".join(lines[cut:]))
        append = _time_run(grown, [str(folder / "log" / "new.dat")])
        full = _time_run(whole, [])
        same = _read_hash(grown) == _read_hash(whole)
        counts = {"new_rows": len(lines) - cut, "rows": len(lines)}
        results.append({"share": share, **counts, "append": append, "full": full, "same": same})
    shutil.rmtree(folder)
    return results


def _with_log(config: Config, folder: Path, name: str) -> Config:
    source = dataclasses.replace(config.source, paths=(str(folder / "log" / "*.dat"),))
    return dataclasses.replace(config, source=source, workspace=str(folder / name))


def _time_run(config: Config, append: Sequence[str]) -> float:
    began = time.monotonic()
    preprocess.run(config, append=append)
    return time.monotonic() - began


def _read_hash(config: Config) -> str:
    """The hash that a manifest has of all files' contents."""
    return str(json.loads((Workspace(config).dataset_dir / "manifest.json").read_text(encoding="utf-8"))["content"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.append", description="Measures what appending to a data set costs."
    )
    add_config_flags(parser)
    parser.add_argument("--shares", default="0.01,0.1", help="comma-separated shares of the log that are new")
    parser.add_argument("--output", type=Path, default=Path("workspace/benchmarks/append.json"), help="JSON file")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(message)s", force=True)
    logging.getLogger("beam.preprocess").setLevel(logging.INFO)
    shares = [float(share) for share in flags.shares.split(",")]
    results = run(load_config(flags.config, flags.set), shares, flags.output.parent / "append")
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(flags.output, {"config": str(flags.config), "results": results})
    table = Table("new", "of rows", "append, s", "full run, s", "full / append", "same bytes")
    for row in results:
        ratio = f"{row['full'] / row['append']:.1f}"
        times = (f"{row['append']:.1f}", f"{row['full']:.1f}", ratio, "yes" if row["same"] else "NO")
        table.add_row(f"{row['new_rows']:,} ({row['share']:.1%})", f"{row['rows']:,}", *times)
    Console().print(table)
    if not all(row["same"] for row in results):
        sys.exit("append: appending must give what a full run gives. Received: other bytes; see the table.")


if __name__ == "__main__":
    main()
