"""The tf.distribute strategy of a configuration."""

import tensorflow as tf

from tf_lift.config import Training


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
    prepare_devices(training)
    if training.strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if training.strategy == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def prepare_devices(training: Training) -> None:
    """Splits the CPU into the logical devices of the configuration, which must happen before any operation runs.

    Args:
        training: the configuration's section.

    Raises:
        ValueError: operations have run.
    """
    if training.num_logical_devices:
        _split_cpu(training.num_logical_devices)


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
