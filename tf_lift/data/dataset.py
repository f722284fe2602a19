"""tf.data inputs of pretraining and of the predictor."""

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import ExampleSpec

_SHUFFLE_EXAMPLES = 20_000  # files are in drawn order already; this varies it between epochs


def build_input_options() -> tf.data.Options:
    """Options of every input that training reads.

    Batches, not files, are shared out: every worker of a multi-worker strategy reads every file, so that few files do not mean few
    workers. Nothing is tuned while it runs: at an epoch's end TensorFlow may wait for its sleeping tuner to wake, whose sleep doubles
    each time, so that an epoch may take twice as long.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    options.autotune.enabled = False
    return options


def read_examples(
    dataset: Dataset, split: str, spec: ExampleSpec, batch_size: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Batches of a split's parsed examples.

    Args:
        dataset: the data set.
        split: "train", "validation" or "test".
        spec: the example's definition.
        batch_size: slates of a batch, over all replicas.
        shuffle_seed: None: file order; otherwise files and examples are shuffled by it.

    Returns:
        A data set of what `RowReferences.resolve` returns. It knows its number of batches by what preprocessing counted; TensorFlow
        fails where the files hold fewer examples.

    Raises:
        ValueError: there are no files.
    """
    pattern, references = dataset.example_pattern(split), dataset.row_references
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(
            f"Examples must be there. Received: no file like {pattern}. Run `python -m beam.preprocess` first."
        )
    names = tf.data.Dataset.from_tensor_slices(files)
    if shuffle_seed is not None:
        names = names.shuffle(len(files), seed=shuffle_seed)
    records = names.interleave(
        tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if shuffle_seed is not None:
        records = records.shuffle(_SHUFFLE_EXAMPLES, seed=shuffle_seed)

    def read(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return references.resolve(spec.parse(serialized))

    batches = records.batch(batch_size).map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-dataset.num_examples(split) // batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE).with_options(build_input_options())


def window_batches(
    first_rows: np.ndarray,
    num_rows: np.ndarray,
    noise_shape: tuple[int, int],
    batch_size: int,
    seed: int,
    shuffle: bool,
) -> tf.data.Dataset:
    """Batches of pretraining windows with their random numbers, which depend on the window and the seed alone.

    Args:
        first_rows: int64 [W].
        num_rows: int64 [W].
        noise_shape: rows that need random numbers, and how many each.
        batch_size: windows of a batch, over all replicas.
        seed: of the epoch.
        shuffle: whether the order is drawn.

    Returns:
        A data set of `first_row`, `num_rows` int32 [B] and `noise` float32 [B, *noise_shape].
    """

    def add_noise(first_row: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        seeds = tf.stack([tf.constant(seed, tf.int64), tf.cast(first_row, tf.int64)])
        noise = tf.random.stateless_uniform(noise_shape, seed=seeds)
        return {"first_row": first_row, "num_rows": count, "noise": noise}

    order = np.random.default_rng(seed).permutation(len(first_rows)) if shuffle else np.arange(len(first_rows))
    windows = tf.data.Dataset.from_tensor_slices((first_rows[order].astype(np.int32), num_rows[order].astype(np.int32)))
    noisy = windows.map(add_noise, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return noisy.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(build_input_options())
