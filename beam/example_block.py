"""Serialized examples on their way to their file, compressed: slates are mostly small numbers, and take a quarter of the bytes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import zstandard


@dataclasses.dataclass(frozen=True)
class ExampleBlock:
    """n serialized examples of one file.

    Attributes:
        keys: uint64 [n] their places in the file's order.
        lengths: int64 [n] bytes of each.
        compressed: the examples one after the other, by zstandard.
        num_candidates: candidates of all of them.
    """

    keys: np.ndarray
    lengths: np.ndarray
    compressed: bytes
    num_candidates: int

    def examples(self) -> list[bytes]:
        """The serialized examples."""
        data = zstandard.decompress(self.compressed)
        ends = np.cumsum(self.lengths).tolist()
        return [data[end - length : end] for end, length in zip(ends, self.lengths.tolist(), strict=True)]


def build_example_block(keys: np.ndarray, examples: Sequence[bytes], num_candidates: int) -> ExampleBlock:
    """A block of n serialized examples, with keys uint64 [n]."""
    lengths = np.array([len(example) for example in examples], np.int64)
    return ExampleBlock(keys, lengths, zstandard.compress(b"".join(examples), 1), num_candidates)
