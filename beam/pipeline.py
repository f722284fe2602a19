"""The preprocessing pipeline: one for any runner and all splits.

    log -> parse and join -> vocabularies and split -> interaction log -> posting lists -> examples

Elements are batches, never rows. Where a step needs all of an earlier one (ids need every value, neighbours need every
posting list), it takes that step's result as a side input. What a step writes depends on the data and the configuration
alone, never on workers or bundles: groups are sorted by what identifies a row before they are written.
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsSingleton

from . import example_steps, log_steps, parse_steps
from .pipeline_inputs import AddCounts, PipelineInputs, write_facts


class ReadAttributeTable(beam.PTransform):
    """One attribute table as a single `JoinedTable`."""

    def __init__(self, inputs: PipelineInputs, index: int) -> None:
        super().__init__()
        self._inputs, self._index = inputs, index

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        return (
            root
            | "ListFiles" >> beam.Create(list(enumerate(self._inputs.attribute_paths[self._index])), reshuffle=False)
            | "ReadChunks" >> beam.FlatMap(parse_steps.read_attribute_chunks, self._inputs, self._index)
            | "ParseChunks" >> beam.Map(parse_steps.parse_attribute_chunk, self._inputs, self._index)
            | "JoinChunks" >> beam.CombineGlobally(parse_steps.JoinAttributeTables())
        )


class ParseInteractions(beam.PTransform):
    """Reads, checks and joins: `InteractionBatch` elements under `batches`, rejected rows and counts beside them."""

    def __init__(self, inputs: PipelineInputs, tables: Sequence[beam.PCollection]) -> None:
        super().__init__()
        self._inputs, self._tables = inputs, tables

    def expand(self, root: beam.Pipeline) -> beam.pvalue.DoOutputsTuple:
        return (
            root
            | "ListFiles" >> beam.Create(list(enumerate(self._inputs.log_paths)), reshuffle=False)
            | "ReadChunks" >> beam.FlatMap(parse_steps.read_log_chunks, self._inputs)
            | "SpreadChunks" >> beam.Reshuffle()
            | "ParseChunks"
            >> beam.ParDo(parse_steps.ParseChunk(self._inputs), *map(AsSingleton, self._tables)).with_outputs(
                "rejected", "counts", main="batches"
            )
        )


class CheckInput(beam.PTransform):
    """Writes rejected rows and the input's counts, and passes these on if not too many of the log's were rejected."""

    def __init__(self, inputs: PipelineInputs, tables: Sequence[beam.PCollection]) -> None:
        super().__init__()
        self._inputs, self._tables = inputs, tables

    def expand(self, rejected_and_counts: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        inputs = self._inputs
        rejected, counts = ([collection] for collection in rejected_and_counts)
        for index, table in enumerate(self._tables):
            rejected.append(table | f"ListRejected{index}" >> beam.FlatMap(parse_steps.list_rejected))
            counts.append(table | f"CountTable{index}" >> beam.Map(parse_steps.count_table, inputs, index))
        written = (
            rejected
            | "JoinRejected" >> beam.Flatten()
            | "GroupRejected" >> beam.GroupByKey()
            | "WriteRejected" >> beam.Map(parse_steps.write_rejected, inputs)
        )
        return (
            counts
            | "JoinCounts" >> beam.Flatten()
            | "AddCounts" >> beam.CombineGlobally(AddCounts())
            | "WriteFacts" >> beam.Map(write_facts, inputs, "read")
            | "CheckRejected" >> beam.Map(parse_steps.check_rejected, inputs, AsIter(written))
        )


class BuildVocabularies(beam.PTransform):
    """Batches to `(field, FirstSeen)`, values in the order of first appearance: their ids."""

    def __init__(self, inputs: PipelineInputs) -> None:
        super().__init__()
        self._inputs = inputs

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "FindFirstSeen" >> beam.FlatMap(log_steps.find_all_first_seen)
            | "JoinFirstSeen" >> beam.CombinePerKey(log_steps.JoinFirstSeen())
            | "WriteVocabulary" >> beam.Map(log_steps.write_vocabulary, self._inputs)
        )


class BuildLog(beam.PTransform):
    """Batches to the shards of the interaction log, one user's rows in one shard."""

    def __init__(self, inputs: PipelineInputs) -> None:
        super().__init__()
        self._inputs = inputs

    def expand(self, encoded_and_boundaries: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        encoded, boundaries = encoded_and_boundaries
        entities = (
            encoded
            | "FindEntities" >> beam.FlatMap(log_steps.find_entities, self._inputs)
            | "GroupEntities" >> beam.GroupByKey()
            | "WriteEntities" >> beam.Map(log_steps.write_entities, self._inputs)
        )
        return (
            encoded
            | "SplitByUser" >> beam.FlatMap(log_steps.split_encoded, self._inputs, AsDict(entities))
            | "GroupByUserShard" >> beam.GroupByKey()
            | "WriteLogShard"
            >> beam.Map(log_steps.write_log_shard, self._inputs, AsSingleton(boundaries), AsDict(entities))
            | "JoinLogCounts" >> beam.CombineGlobally(AddCounts())
            | "WriteLogFacts" >> beam.Map(write_facts, self._inputs, "log")
        )


class BuildExamples(beam.PTransform):
    """The finished log to posting lists, windows and examples."""

    def __init__(self, inputs: PipelineInputs) -> None:
        super().__init__()
        self._inputs = inputs

    def expand(self, log_and_boundaries: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        log, boundaries = log_and_boundaries
        inputs, root = self._inputs, log.pipeline
        start = root | "StartIndex" >> beam.Create([None], reshuffle=False)
        sets = (
            start
            | "ListMatchSets"
            >> beam.FlatMap(example_steps.list_match_sets, inputs, AsSingleton(boundaries), AsSingleton(log))
            | "SpreadMatchSets" >> beam.Reshuffle()
            | "WritePostingLists" >> beam.Map(example_steps.write_posting_lists, inputs, AsSingleton(boundaries))
            | "JoinPostingCounts" >> beam.CombineGlobally(AddCounts())
            | "WritePostingFacts" >> beam.Map(write_facts, inputs, "posting_lists")
        )
        start | "WriteWindows" >> beam.Map(
            example_steps.write_windows, inputs, AsSingleton(boundaries), AsSingleton(log)
        )
        return (
            start
            | "ListTargets"
            >> beam.FlatMap(example_steps.list_target_batches, inputs, AsSingleton(boundaries), AsSingleton(sets))
            | "SpreadTargets" >> beam.Reshuffle()
            | "BuildSlates" >> beam.FlatMap(example_steps.build_slates, inputs, AsSingleton(boundaries))
            | "GroupByFile" >> beam.GroupByKey()
            | "WriteExamples" >> beam.Map(example_steps.write_examples, inputs)
            | "JoinExampleCounts" >> beam.CombineGlobally(AddCounts())
            | "WriteExampleFacts" >> beam.Map(write_facts, inputs, "examples")
        )


def build_pipeline(root: beam.Pipeline, inputs: PipelineInputs) -> None:
    """Adds every step to a pipeline. The folder then holds the data set, and the steps' counts under `facts/`."""
    tables = [
        root | f"ReadTable{index}" >> ReadAttributeTable(inputs, index) for index in range(len(inputs.attribute_paths))
    ]
    parsed = root | "ParseInteractions" >> ParseInteractions(inputs, tables)
    read = (parsed.rejected, parsed.counts) | "CheckInput" >> CheckInput(inputs, tables)
    boundaries = (
        parsed.batches
        | "CountTimes" >> beam.Map(log_steps.count_batch_times)
        | "JoinTimes" >> beam.CombineGlobally(log_steps.JoinTimes())
        | "FindBoundaries" >> beam.Map(log_steps.write_boundaries, inputs, AsSingleton(read))
    )
    vocabularies = parsed.batches | "BuildVocabularies" >> BuildVocabularies(inputs)
    encoded = parsed.batches | "EncodeBatches" >> beam.Map(log_steps.encode_with, inputs, AsIter(vocabularies))
    log = (encoded, boundaries) | "BuildLog" >> BuildLog(inputs)
    (log, boundaries) | "BuildExamples" >> BuildExamples(inputs)
