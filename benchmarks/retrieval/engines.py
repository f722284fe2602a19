"""The engines, each in its fastest exact setting on one thread. All answer score descending; newest first is asked of all."""

import abc
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.data import DataSet, DataSpec, Rows
from benchmarks.retrieval.reference import NO_ROW, RELATIVE_TOLERANCE, Answers
from tf_lift.config import Retrieval
from tf_lift.retrieval.bm25 import SCORE_UNITS, idf_units
from tf_lift.schema import FIRST_VALUE_ID

OURS = "tf_lift"
_TARGETS_PER_CALL = 4096
_ROWS_PER_PEAK = 256
_MAX_GENERATORS = 2  # of the match sets whose counts are statistics


class Engine(abc.ABC):
    """One engine over one pool.

    Attributes:
        packages: what must be installed.
        needs_only_fields: whether it makes nothing of the pool's times, users and labels.
        tolerance: relative, of its scores beside the truth; 0 asks for equality.
    """

    packages: tuple[str, ...] = ()
    needs_only_fields = True
    tolerance = RELATIVE_TOLERANCE

    @abc.abstractmethod
    def build(self, data: DataSet, spec: DataSpec, num_neighbours: int) -> None:
        """Makes the index of `data.pool`; may be called again, for another pool."""

    @abc.abstractmethod
    def num_bytes(self) -> int:
        """Bytes of the index."""

    @abc.abstractmethod
    def prepare(self, targets: Rows) -> Sequence[Any] | Rows:
        """Brings targets into the form that the engine takes; not timed."""

    @abc.abstractmethod
    def answer(self, targets: Any) -> Any:
        """Finds the nearest rows of prepared targets; this is timed."""

    @abc.abstractmethod
    def decode(self, found: Any) -> Answers:
        """Brings what `answer` returned into the common form; not timed."""

    def variants(self) -> dict[str, Callable[[Any], Any]]:
        """Further ways to answer, timed likewise, by name."""
        return {}

    def notes(self) -> dict[str, Any]:
        """What else to record about the index."""
        return {}

    def close(self) -> None:  # noqa: B027 - most leave nothing
        """Removes what the index left on the disk."""


class TfLift(Engine):
    """This project's posting lists."""

    packages, needs_only_fields, tolerance = ("numba",), False, 0.0

    def build(self, data: DataSet, spec: DataSpec, num_neighbours: int) -> None:
        from tf_lift.retrieval.match_sets import find_match_sets
        from tf_lift.retrieval.posting_lists import PoolRows, build_posting_lists

        self._sets = find_match_sets(range(len(data.num_ids)), len(data.num_ids), data.determined)
        self._retrieval = Retrieval(num_neighbours=num_neighbours, exclude_own_user=spec.exclude_own_user)
        ids = np.arange(len(data.pool.time), dtype=np.int32)
        self._lists = build_posting_lists(PoolRows(*data.pool, ids), self._sets, spec.rolling, self._retrieval)

    def num_bytes(self) -> int:
        return self._lists.num_bytes()

    def prepare(self, targets: Rows) -> Rows:
        return targets

    def answer(self, targets: Rows, statistics: tuple[int, ...] = (), targets_per_call: int = _TARGETS_PER_CALL) -> Any:
        own = self._retrieval.exclude_own_user
        return [
            self._lists.nearest(part.fields, part.time, self._retrieval, part.user if own else None, statistics)
            for part in (
                targets.take(slice(begin, begin + targets_per_call))
                for begin in range(0, len(targets.time), targets_per_call)
            )
        ]

    def decode(self, found: Any) -> Answers:
        return Answers(np.concatenate([part.rows for part in found]), np.concatenate([part.scores for part in found]))

    def variants(self) -> dict[str, Callable[[Any], Any]]:
        counted = tuple(i for i, fields in enumerate(self._sets.generators) if len(fields) <= _MAX_GENERATORS)
        return {
            f"with {len(counted)} statistics": lambda targets: self.answer(targets, counted),
            "one target a call": lambda targets: self.answer(targets, targets_per_call=1),
        }

    def notes(self) -> dict[str, Any]:
        return {"match_sets": len(self._sets)}


class Tantivy(Engine):
    """An index of raw text tokens, one a field, in one segment; its ties go to the lower document, so newest rows are added first.

    Its BM25 of one-token fields is the sum of the Lucene idf. Terms keep their frequency, though it is always 1: block-max
    pruning needs it. On ML-1M that gave 218 queries/s, text without frequencies 174, and integer fields 200; at 1 million
    synthetic rows 1,690, 1,340 and 1,440.
    """

    packages = ("tantivy",)
    _HEAP_BYTES = 4_000_000_000  # the most it takes; a full heap would begin a new segment
    _ROWS_PER_PART = 1 << 16

    def build(self, data: DataSet, spec: DataSpec, num_neighbours: int) -> None:
        import tantivy

        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="tantivy-")
        self._names = [f"f{field}" for field in range(len(data.num_ids))]
        builder = tantivy.SchemaBuilder()
        for name in self._names:
            builder.add_text_field(name, tokenizer_name="raw", index_option="freq")
        self._schema, self._num_neighbours = builder.build(), num_neighbours
        index = tantivy.Index(self._schema, path=self._folder.name)
        heap = self._HEAP_BYTES if len(data.pool.fields) > self._ROWS_PER_PART else self._HEAP_BYTES // 100
        writer = index.writer(heap_size=heap, num_threads=1)
        for values in self._newest_first(data.pool.fields):
            document = tantivy.Document()
            for name, value in zip(self._names, values, strict=True):
                document.add_text(name, value)
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._searcher, self._num_rows = index.searcher(), len(data.pool.fields)

    def _newest_first(self, fields: np.ndarray) -> Iterator[list[str]]:
        for end in range(len(fields), 0, -self._ROWS_PER_PART):
            yield from fields[max(end - self._ROWS_PER_PART, 0) : end][::-1].astype(np.str_).tolist()

    def num_bytes(self) -> int:
        return sum(path.stat().st_size for path in Path(self._folder.name).iterdir())

    def prepare(self, targets: Rows) -> Sequence[Any]:
        return [
            [(name, str(value)) for name, value in zip(self._names, values, strict=True) if value >= FIRST_VALUE_ID]
            for values in targets.fields.tolist()
        ]

    def answer(self, targets: Any) -> Any:
        from tantivy import Occur, Query

        schema, search, term, should = self._schema, self._searcher.search, Query.term_query, Occur.Should
        return [
            search(
                Query.boolean_query([(should, term(schema, name, value, "freq")) for name, value in terms]),
                self._num_neighbours,
                count=False,
            ).hits
            for terms in targets
        ]

    def decode(self, found: Any) -> Answers:
        answers = _no_answers(len(found), self._num_neighbours)
        for index, hits in enumerate(found):
            answers.scores[index, : len(hits)] = [score for score, _ in hits]
            answers.rows[index, : len(hits)] = [self._num_rows - 1 - address.doc for _, address in hits]
        return answers

    def notes(self) -> dict[str, Any]:
        return {"segments": self._searcher.num_segments}

    def close(self) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


class Bm25s(Engine):
    """Eager scores in a sparse matrix, with the numba backend. Rows are added newest first; it promises nothing about ties."""

    packages = ("bm25s", "numba")
    _TERM_FREQUENCY_PART = 1 / 2.5  # tf / (k1 + tf) at tf = 1 and its k1 of 1.5

    def build(self, data: DataSet, spec: DataSpec, num_neighbours: int) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import asks for all messages

        if not hasattr(self, "_model"):  # kept from the warm-up: each model compiles its own functions
            self._model = bm25s.BM25(method="lucene", backend="numba")
        self._num_neighbours, self._num_rows = num_neighbours, len(data.pool.fields)
        self._offsets = np.concatenate([[0], np.cumsum(data.num_ids)[:-1]])
        vocabulary = {token: token for token in range(sum(data.num_ids))}
        documents = (data.pool.fields[::-1] + self._offsets).tolist()
        self._model.index((documents, vocabulary), create_empty_token=False, show_progress=False)

    def num_bytes(self) -> int:
        return sum(self._model.scores[name].nbytes for name in ("data", "indices", "indptr"))

    def prepare(self, targets: Rows) -> Sequence[Any]:
        return (targets.fields + self._offsets).tolist()

    def answer(self, targets: Any) -> Any:
        return self._model.retrieve(targets, k=self._num_neighbours, n_threads=1, show_progress=False)

    def decode(self, found: Any) -> Answers:
        matched = found.scores > 0
        return Answers(
            np.where(matched, self._num_rows - 1 - found.documents, NO_ROW).astype(np.int32),
            np.where(matched, found.scores / self._TERM_FREQUENCY_PART, 0).astype(np.float32),
        )


class NumpyScan(Engine):
    """Dense: each column compared with the target's value, the idf added up over all rows, the K largest found by partition.

    Only rows that reach the K-th largest peak of a stretch of rows are partitioned: 1 million mostly equal scores take 19 ms.
    """

    tolerance = 0.0

    def build(self, data: DataSet, spec: DataSpec, num_neighbours: int) -> None:
        self._columns = np.ascontiguousarray(data.pool.fields.T)
        self._num_neighbours, num_rows = num_neighbours, self._columns.shape[1]
        self._idf = [
            idf_units(np.asarray(num_rows), np.bincount(column, minlength=size), "lucene").astype(np.int32)
            for column, size in zip(self._columns, data.num_ids, strict=True)
        ]
        for idf in self._idf:
            idf[:FIRST_VALUE_ID] = 0

    def num_bytes(self) -> int:
        return self._columns.nbytes + sum(idf.nbytes for idf in self._idf)

    def prepare(self, targets: Rows) -> Sequence[Any]:
        return list(targets.fields)

    def answer(self, targets: Any) -> Any:
        return [self._answer_one(values) for values in targets]

    def _answer_one(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_rows, k = self._columns.shape[1], self._num_neighbours
        scores = np.zeros(num_rows, np.int32)
        for column, idf, value in zip(self._columns, self._idf, values, strict=True):
            scores += (column == value) * idf[value]
        peaks = np.maximum.reduceat(scores, np.arange(0, num_rows, _ROWS_PER_PEAK))
        rows = np.flatnonzero(
            scores >= max(_kth_largest(peaks, k), 1)
        )  # K of the peaks are rows, so no more can be left out
        least = _kth_largest(scores[rows], k)
        above, ties = rows[scores[rows] > least], rows[scores[rows] == least]
        rows = np.concatenate([above, ties[len(ties) - min(k - len(above), len(ties)) :]])
        rows = rows[np.lexsort((-rows, -scores[rows]))]
        return rows, scores[rows]

    def decode(self, found: Any) -> Answers:
        answers = _no_answers(len(found), self._num_neighbours)
        for index, (rows, scores) in enumerate(found):
            answers.rows[index, : len(rows)] = rows
            answers.scores[index, : len(rows)] = scores / SCORE_UNITS
        return answers


ENGINES: dict[str, type[Engine]] = {OURS: TfLift, "tantivy": Tantivy, "bm25s": Bm25s, "numpy scan": NumpyScan}


def missing_packages(engine: str) -> list[str]:
    """Packages that an engine needs and that are not installed."""
    return [name for name in ENGINES[engine].packages if importlib.util.find_spec(name) is None]


def use_one_core() -> None:
    """Binds this process to one core; the environment of `runner.py` has already asked all libraries for one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _no_answers(num_targets: int, num_neighbours: int) -> Answers:
    shape = (num_targets, num_neighbours)
    return Answers(np.full(shape, NO_ROW, np.int32), np.zeros(shape, np.float32))


def _kth_largest(scores: np.ndarray, k: int) -> int:
    """The K-th largest score; 0 where there are fewer."""
    return int(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) >= k else 0
