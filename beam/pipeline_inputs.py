"""What the steps of the pipeline are given."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import apache_beam as beam

from tf_lift.config import Config

from .field_columns import FieldColumns


@dataclasses.dataclass(frozen=True)
class PipelineInputs:
    """What the pipeline starts from.

    Attributes:
        config: the configuration.
        columns: where each field comes from.
        log_paths: files of the log, sorted.
        attribute_paths: files of each attribute table.
        dataset_dir: an empty folder, which every worker can write to.
        run_token: different for every run, so that workers that outlive one never reuse what they read for another.
    """

    config: Config
    columns: FieldColumns
    log_paths: tuple[str, ...]
    attribute_paths: tuple[tuple[str, ...], ...]
    dataset_dir: Path
    run_token: str

    @property
    def facts_dir(self) -> Path:
        """Where the steps leave their counts."""
        return self.dataset_dir / "facts"


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
    aside = inputs.facts_dir / f"{name}.partial"
    aside.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    aside.rename(inputs.facts_dir / f"{name}.json")
