"""The tf.distribute strategy of a configuration."""

import functools
import json
import os

import tensorflow as tf

from tf_lift.config import Training


@functools.cache  # collective operations can be set up once a process
def build_strategy(training: Training) -> tf.distribute.Strategy:
    """Builds the strategy that models are made under.

    Args:
        training: the configuration's section.

    Returns:
        The default strategy for "none"; MirroredStrategy over all GPUs, or over the logical CPU devices where there is no GPU;
        MultiWorkerMirroredStrategy over the workers that TF_CONFIG names.

    Raises:
        ValueError: the logical devices were asked for too late.
    """
    if training.num_logical_devices:
        _split_cpu(training.num_logical_devices)
    if training.strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if training.strategy == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def worker_index(training: Training) -> int:
    """Number of this process among the workers of a multi-worker strategy, 0 for the one that writes artefacts.

    Args:
        training: the configuration's section.

    Raises:
        ValueError: the strategy is multi_worker and TF_CONFIG is not set.
    """
    if training.strategy != "multi_worker":
        return 0
    content = os.environ.get("TF_CONFIG", "")
    try:
        task = json.loads(content)["task"]
        return 0 if task["type"] == "chief" else int(task["index"]) + ("chief" in json.loads(content)["cluster"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "training.strategy = 'multi_worker' needs TF_CONFIG with `cluster` and `task`. Received: "
            f"TF_CONFIG={content!r}. Set it on every worker, or choose 'none' or 'mirrored'."
        ) from error


def prepare_devices(training: Training) -> None:
    """Does what must happen before any operation runs: splits the CPU into logical devices, joins the other workers.

    Args:
        training: the configuration's section.

    Raises:
        ValueError: operations have run.
    """
    if training.num_logical_devices:
        _split_cpu(training.num_logical_devices)
    if training.strategy == "multi_worker":
        worker_index(training)
        build_strategy(training)


def _split_cpu(num_devices: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * num_devices
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError as error:
        existing = len(tf.config.list_logical_devices("CPU"))
        if existing != num_devices:
            raise ValueError(
                "The CPU must be split into logical devices before TensorFlow is used. Received: training.num_logical_devices = "
                f"{num_devices}, with {existing} already. Start a new process."
            ) from error
