"""The softmax over all items, loss and gradients, beside TensorFlow's own operation: `python -m benchmarks.softmax_loss`."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tf_lift.layers.softmax_loss import softmax_cross_entropy

_Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
OURS, PEER = "softmax_cross_entropy", "tf.nn.sparse_softmax_cross_entropy_with_logits"


def measure(num_states: int, num_items: int, width: int, repeats: int) -> dict[str, np.ndarray]:
    """Seconds of every repeat of loss and gradients, one after the other's in turn.

    Raises:
        ValueError: the losses or gradients differ.
    """
    random = tf.random.Generator.from_seed(7)
    states, embedded = random.normal([num_states, width]), random.normal([num_items, width], stddev=0.05)
    items, bias = random.uniform([num_states], 0, num_items, tf.int32), tf.zeros([num_items])
    arguments = (states, items, embedded, bias)
    steps = {OURS: _build_step(softmax_cross_entropy), PEER: _build_step(_reference)}
    for ours, peers in zip(*(step(*arguments) for step in steps.values()), strict=True):
        if not np.allclose(ours, peers, rtol=1e-3, atol=1e-4):
            raise ValueError(f"Both must give the same. Received: {np.abs(ours - peers).max()} between them.")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            began = time.perf_counter()
            step(*arguments)
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def _build_step(loss: _Loss) -> Callable[..., list[tf.Tensor]]:
    @tf.function
    def step(states: tf.Tensor, items: tf.Tensor, embedded: tf.Tensor, bias: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([states, embedded, bias])
            losses = loss(states, items, embedded, bias)
        gradients = tape.gradient(losses, [states, embedded, bias])
        return [losses, *map(tf.convert_to_tensor, gradients)]

    return step


def _reference(states: tf.Tensor, items: tf.Tensor, embedded: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    logits = tf.matmul(states, embedded, transpose_b=True) + bias
    return tf.nn.sparse_softmax_cross_entropy_with_logits(items, logits)


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.softmax_loss", description=__doc__)
    parser.add_argument("--states", type=int, default=6400, help="of a step; default: %(default)s")
    parser.add_argument("--items", type=int, default=3500, help="default: %(default)s, as of ML-1M's pool")
    parser.add_argument("--width", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=15, help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    flags = parse_flags(arguments)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    seconds = measure(flags.states, flags.items, flags.width, flags.repeats)
    words = f"{flags.states:,} states, {flags.items:,} items, {flags.width} wide, one thread"
    table = Table(title=f"A softmax over all items and its gradients: {words}")
    for heading in ("loss", "median ms", "minimum ms", "times the median of TensorFlow's"):
        table.add_column(heading, justify="left" if heading == "loss" else "right")
    for name, values in seconds.items():
        ratio = np.median(values) / np.median(seconds[PEER])
        table.add_row(name, f"{1e3 * np.median(values):.0f}", f"{1e3 * values.min():.0f}", f"{ratio:.2f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
