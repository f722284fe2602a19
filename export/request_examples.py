"""The tf.Examples that `classify` and `regress` take: a user and an item as the log had them."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_lift.schema import Schema


def request_example_spec(context_names: tuple[str, ...]) -> dict[str, tf.io.FixedLenFeature]:
    """Their features: `user`, `item`, `time` in epoch seconds, and the context fields, which may be absent."""
    text = tf.io.FixedLenFeature([], tf.string)
    optional = tf.io.FixedLenFeature([], tf.string, default_value="")
    time = tf.io.FixedLenFeature([], tf.int64)
    return {"user": text, "item": text, "time": time, **dict.fromkeys(context_names, optional)}


def build_request_examples(request: Mapping[str, np.ndarray], schema: Schema) -> list[bytes]:
    """Serialized examples of the first candidates of a request.

    Args:
        request: as `rank_known_user` takes it.
        schema: the M fields.
    """
    names = [schema.names[index] for index in schema.indices("context")]
    examples = []
    for place, (user, candidates, time) in enumerate(
        zip(request["user"], request["candidates"], request["time"], strict=True)
    ):
        texts = {"user": user, "item": candidates[0], **{name: request[name][place] for name in names}}
        features = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for name, text in texts.items()
        }
        features["time"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(time)]))
        example = tf.train.Example(features=tf.train.Features(feature=features))
        examples.append(example.SerializeToString(deterministic=True))
    return examples
