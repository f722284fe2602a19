"""What a worker has read of the data set that is being written: once a run, shared by the threads of its process."""

import dataclasses
import threading

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import Boundaries, read_dataset_info

from .build_examples import ExampleBuilder
from .pipeline_inputs import PipelineInputs

_datasets: dict[str, Dataset] = {}
_builders: dict[str, ExampleBuilder] = {}
_lock = threading.RLock()


def open_log(inputs: PipelineInputs, boundaries: Boundaries) -> Dataset:
    """The data set as far as the interaction log, which must stand."""
    with _lock:
        if inputs.run_token not in _datasets:
            _datasets.clear()
            _builders.clear()
            folder = inputs.folder.fetch_matching("vocabulary/*.tsv", "*.npy", "interactions-*.tfrecord")
            info = read_dataset_info(folder, inputs.config, {"boundaries": dataclasses.asdict(boundaries)})
            _datasets[inputs.run_token] = Dataset(inputs.config, folder, info)
        return _datasets[inputs.run_token]


def open_builder(inputs: PipelineInputs, boundaries: Boundaries) -> ExampleBuilder:
    """The builder of examples, on the same data set."""
    with _lock:
        dataset = open_log(inputs, boundaries)
        if inputs.run_token not in _builders:
            if not inputs.is_grouped:
                inputs.folder.fetch_matching("posting_lists/*")
            _builders[inputs.run_token] = ExampleBuilder(dataset)
        return _builders[inputs.run_token]


def forget_run(run_token: str) -> None:
    """Frees what a run in this process has read."""
    with _lock:
        _datasets.pop(run_token, None)
        _builders.pop(run_token, None)
