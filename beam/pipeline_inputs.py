"""What the steps of the pipeline are given."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import apache_beam as beam

from tf_lift.config import Config
from tf_lift.data.dataset_info import Boundaries

from .field_columns import FieldColumns
from .storage import DatasetFolder


@dataclasses.dataclass(frozen=True)
class PreviousDataset:
    """The data set that new files are appended to.

    Attributes:
        folder: where it lies.
        counts: its manifest's.
        boundaries: its split.
    """

    folder: DatasetFolder
    counts: Mapping[str, int]
    boundaries: Boundaries


@dataclasses.dataclass(frozen=True)
class PipelineInputs:
    """What the pipeline starts from.

    Attributes:
        config: the configuration.
        columns: where each field comes from.
        log_paths: files of the log, sorted.
        new_paths: those of them that are read.
        attribute_paths: files of each attribute table.
        folder: where the data set is written; every worker can reach it.
        fetched_dir: the folder of the workspace in which it lies in the end.
        is_grouped: whether targets and posting lists meet by key (`pipeline.join`).
        previous: the data set that the new files are appended to; None: there is none.
        run_token: different for every run, so that workers that outlive one never reuse what they read for another.
    """

    config: Config
    columns: FieldColumns
    log_paths: tuple[str, ...]
    new_paths: tuple[str, ...]
    attribute_paths: tuple[tuple[str, ...], ...]
    folder: DatasetFolder
    fetched_dir: str
    is_grouped: bool
    previous: PreviousDataset | None
    run_token: str

    @property
    def base(self) -> PreviousDataset:
        """What is appended to, for the steps that append."""
        if self.previous is None:
            raise ValueError("Only a run that appends has a previous data set. Received: one that reads all files.")
        return self.previous

    @property
    def first_new_rank(self) -> int:
        """The first rank of the pool's order whose row is not in the previous posting lists."""
        return self.previous.counts["rows"] if self.previous else 0

    @property
    def first_new_slice(self) -> int:
        """The first slice of the pool's order that has new rows."""
        return self.first_new_rank // self.config.pipeline.pool_slice_rows

    def report_progress(self, name: str, num_done: int) -> None:
        """Leaves a number for the progress bar, where the driver can see this machine's files."""
        if self.folder.is_local:
            path = Path(self.folder.url, "facts", f"{name}.done")
            path.write_text(str(num_done), encoding="utf-8")


class AddCounts(beam.CombineFn):
    """Adds dictionaries of counts."""

    def create_accumulator(self) -> dict[str, int]:
        return {}

    def add_input(self, accumulator: dict[str, int], element: Mapping[str, int]) -> dict[str, int]:
        return {name: accumulator.get(name, 0) + element.get(name, 0) for name in {**accumulator, **element}}

    def merge_accumulators(self, accumulators: Iterable[dict[str, int]]) -> dict[str, int]:
        total: dict[str, int] = {}
        for accumulator in accumulators:
            total = self.add_input(total, accumulator)
        return total

    def extract_output(self, accumulator: dict[str, int]) -> dict[str, int]:
        return accumulator


def write_facts(counts: Mapping[str, int], inputs: PipelineInputs, name: str) -> dict[str, int]:
    """Writes a step's counts where the driver finds them, and passes them on."""
    write_fact_file(inputs, name, counts)
    return dict(counts)


def write_fact_file(inputs: PipelineInputs, name: str, facts: Mapping[str, int]) -> None:
    """Writes `facts/<name>.json`, whole or not at all."""
    with inputs.folder.writing(f"facts/{name}.json") as path:
        path.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
