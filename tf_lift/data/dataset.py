"""tf.data inputs of pretraining and of the predictor."""

import numpy as np
import tensorflow as tf

from tf_lift.data.examples import ExampleSpec
from tf_lift.data.row_references import RowReferences

_SHUFFLE_EXAMPLES = 20_000  # files are in drawn order already; this varies it between epochs


def read_examples(
    pattern: str,
    spec: ExampleSpec,
    references: RowReferences,
    batch_size: int,
    shuffle_seed: int | None = None,
    num_examples: int | None = None,
) -> tf.data.Dataset:
    """Batches of parsed examples.

    Args:
        pattern: glob of TFRecord files.
        spec: the example's definition.
        references: of the log that the examples were made from.
        batch_size: slates of a batch, over all replicas.
        shuffle_seed: None: file order; otherwise files and examples are shuffled by it.
        num_examples: in all files, by which the data set knows its number of batches.

    Returns:
        A data set of what `RowReferences.resolve` returns. To read another number of batches than it knows is an error of
        TensorFlow's.

    Raises:
        ValueError: no file matches.
    """
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(
            f"Examples must be there. Received: no file like {pattern}. Run `python -m beam.preprocess` first."
        )
    # Every worker of a multi-worker strategy reads every file and keeps its share of the batches: few files must not mean few workers.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
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
    if num_examples is not None:
        batches = batches.apply(tf.data.experimental.assert_cardinality(-(-num_examples // batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


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

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    order = np.random.default_rng(seed).permutation(len(first_rows)) if shuffle else np.arange(len(first_rows))
    windows = tf.data.Dataset.from_tensor_slices((first_rows[order].astype(np.int32), num_rows[order].astype(np.int32)))
    noisy = windows.map(add_noise, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return noisy.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)
