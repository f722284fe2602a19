"""The preprocessing pipeline: one for any runner and all splits.

    log -> parse and join -> vocabularies and split -> interaction log -> posting lists -> examples
                                                                   -> transition tables

Elements are batches, never rows. Where a step needs all of an earlier one (ids need every value, neighbours need every
posting list), it takes that step's result as a side input. What a step writes depends on the data and the configuration
alone, never on workers or bundles: groups are sorted by what identifies a row before they are written.
"""

from collections.abc import Sequence

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsDict, AsIter, AsSingleton

from . import append_steps, example_steps, join_steps, log_steps, parse_steps, posting_steps, transition_steps
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
            | "ListFiles"
            >> beam.Create(
                [(i, path) for i, path in enumerate(self._inputs.log_paths) if path in self._inputs.new_paths],
                reshuffle=False,
            )
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
        if inputs.previous:
            start = counts[0].pipeline | "StartPrevious" >> beam.Create([None], reshuffle=False)
            rejected.append(start | "ReadPreviousRejected" >> beam.FlatMap(append_steps.read_rejected, inputs))
            counts.append(start | "ReadPreviousCounts" >> beam.Map(append_steps.read_counts, inputs))
            for index, table in enumerate(self._tables):
                table | f"CheckPrevious{index}" >> beam.Map(append_steps.check_table, inputs, index)
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
        seen = [batches | "FindFirstSeen" >> beam.FlatMap(log_steps.find_all_first_seen)]
        if self._inputs.previous:
            fields = list(range(len(self._inputs.config.schema)))
            seen.append(
                batches.pipeline
                | "ListFields" >> beam.Create(fields, reshuffle=False)
                | "ReadFirstSeen" >> beam.Map(append_steps.read_first_seen, self._inputs)
            )
        return (
            seen
            | "JoinSeen" >> beam.Flatten()
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
        previous_conflicts: dict[str, np.ndarray] | AsDict = {}
        if self._inputs.previous:
            previous_conflicts = AsDict(
                encoded.pipeline
                | "ListEntities" >> beam.Create(["user", "item"], reshuffle=False)
                | "ReadConflicting" >> beam.Map(append_steps.read_conflicting_entities, self._inputs)
            )
        entities = (
            encoded
            | "FindEntities" >> beam.FlatMap(log_steps.find_entities, self._inputs)
            | "GroupEntities" >> beam.GroupByKey()
            | "WriteEntities" >> beam.Map(log_steps.write_entities, self._inputs, previous_conflicts)
        )
        counts = (
            encoded
            | "SplitByUser" >> beam.FlatMap(log_steps.split_encoded, self._inputs, AsDict(entities))
            | "GroupByUserShard" >> beam.GroupByKey()
            | "WriteLogShard"
            >> beam.Map(log_steps.write_log_shard, self._inputs, AsSingleton(boundaries), AsDict(entities))
        )
        parts = [counts]
        if self._inputs.previous:
            parts.append(
                encoded.pipeline
                | "StartConflicts" >> beam.Create([None], reshuffle=False)
                | "ReadConflicts" >> beam.Map(append_steps.read_conflicts, self._inputs)
            )
        return (
            parts
            | "FlattenLogCounts" >> beam.Flatten()
            | "JoinLogCounts" >> beam.CombineGlobally(AddCounts())
            | "WriteLogFacts" >> beam.Map(write_facts, self._inputs, "log")
        )


class BuildPostings(beam.PTransform):
    """The finished log to posting lists: `pieces` by key, `hot_keys`, and `counts` once all parts are written."""

    def __init__(self, inputs: PipelineInputs) -> None:
        super().__init__()
        self._inputs = inputs

    def expand(self, log_and_boundaries: tuple[beam.PCollection, beam.PCollection]) -> dict[str, beam.PCollection]:
        log, boundaries = log_and_boundaries
        inputs, split = self._inputs, AsSingleton(boundaries)
        slices = (
            log.pipeline
            | "StartPostings" >> beam.Create([None], reshuffle=False)
            | "ListSlices" >> beam.FlatMap(posting_steps.list_slices, inputs, split, AsSingleton(log))
            | "SpreadSlices" >> beam.Reshuffle()
        )
        found = slices | "FindHotKeys" >> beam.FlatMap(posting_steps.find_hot_keys, inputs, split, AsSingleton(log))
        parts = self._previous_parts(log) if inputs.previous else None
        if parts:
            found = [
                found,
                parts
                | "FindPreviousHotKeys" >> beam.FlatMap(append_steps.find_previous_hot_keys, inputs, AsSingleton(log)),
            ] | "JoinCandidates" >> beam.Flatten()
        hot_keys = (
            found | "GroupHotKeys" >> beam.GroupByKey() | "JoinHotKeys" >> beam.Map(posting_steps.join_hot_keys, inputs)
        )
        pieces = slices | "BuildPieces" >> beam.FlatMap(posting_steps.build_postings, inputs, split, AsDict(hot_keys))
        if parts:
            previous = parts | "ReadPieces" >> beam.FlatMap(append_steps.read_pieces, inputs, AsDict(hot_keys))
            pieces = [previous, pieces] | "JoinPieces" >> beam.Flatten()
        written = (
            pieces | "GroupPieces" >> beam.GroupByKey() | "WriteParts" >> beam.Map(posting_steps.write_part, inputs)
        )
        counts = (
            [written, hot_keys | "CountHotKeys" >> beam.Map(posting_steps.count_hot_keys)]
            | "JoinCounts" >> beam.Flatten()
            | "AddCounts" >> beam.CombineGlobally(AddCounts())
            | "WriteFacts" >> beam.Map(write_facts, inputs, "posting_lists")
        )
        return {"pieces": pieces, "hot_keys": hot_keys, "counts": counts}

    def _previous_parts(self, log: beam.PCollection) -> beam.PCollection:
        return (
            log.pipeline
            | "StartPrevious" >> beam.Create([None], reshuffle=False)
            | "ListPreviousParts" >> beam.FlatMap(append_steps.list_previous_parts, self._inputs)
            | "SpreadPreviousParts" >> beam.Reshuffle()
        )


class BuildTransitions(beam.PTransform):
    """The finished log to transition tables; they are made again when interactions are appended."""

    def __init__(self, inputs: PipelineInputs) -> None:
        super().__init__()
        self._inputs = inputs

    def expand(self, log_times_and_boundaries: tuple[beam.PCollection, ...]) -> beam.PCollection:
        log, times, boundaries = log_times_and_boundaries
        inputs = self._inputs
        snapshots = times | "PlaceSnapshots" >> beam.Map(
            transition_steps.write_snapshot_times, inputs, AsSingleton(boundaries)
        )
        return (
            log.pipeline
            | "StartTransitions" >> beam.Create([None], reshuffle=False)
            | "ListShards" >> beam.FlatMap(transition_steps.list_log_shards, inputs, AsSingleton(log))
            | "SpreadShards" >> beam.Reshuffle()
            | "CountShards" >> beam.FlatMap(transition_steps.count_shard, inputs, AsSingleton(snapshots))
            | "GroupByPart" >> beam.GroupByKey()
            | "WriteTransitions" >> beam.Map(transition_steps.write_transitions, inputs)
            | "AddCounts" >> beam.CombineGlobally(AddCounts())
            | "WriteFacts" >> beam.Map(write_facts, inputs, "transitions")
        )


class BuildSlates(beam.PTransform):
    """Batches of targets to serialized examples by file, with all posting lists in every worker."""

    def __init__(self, inputs: PipelineInputs) -> None:
        super().__init__()
        self._inputs = inputs

    def expand(self, targets_and_boundaries: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        targets, boundaries = targets_and_boundaries
        return targets | "BuildSlates" >> beam.FlatMap(
            example_steps.build_slates, self._inputs, AsSingleton(boundaries)
        )


class JoinByKey(beam.PTransform):
    """As `BuildSlates`, where targets meet the posting lists' pieces by key."""

    def __init__(self, inputs: PipelineInputs, postings: dict[str, beam.PCollection]) -> None:
        super().__init__()
        self._inputs, self._postings = inputs, postings

    def expand(self, targets_and_boundaries: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        targets, boundaries = targets_and_boundaries
        inputs, split, pieces = self._inputs, AsSingleton(boundaries), self._postings["pieces"]
        carried = (
            pieces
            | "SummarizeHotKeys" >> beam.FlatMap(posting_steps.summarize_hot_piece, inputs)
            | "GroupSummaries" >> beam.GroupByKey()
            | "CarryHotKeys" >> beam.FlatMap(posting_steps.carry_hot_key, inputs)
        )
        queries = targets | "AskKeys" >> beam.FlatMap(
            join_steps.ask_keys, inputs, split, AsDict(self._postings["hot_keys"])
        )
        answers = (
            {"pieces": pieces, "carried": carried, "queries": queries}
            | "MeetByKey" >> beam.CoGroupByKey()
            | "AnswerParts" >> beam.FlatMap(join_steps.answer_part, inputs)
        )
        return (
            {"batch": targets | "NameBatches" >> beam.Map(join_steps.name_batch), "answers": answers}
            | "MeetByBatch" >> beam.CoGroupByKey()
            | "BuildSlates" >> beam.FlatMap(join_steps.build_joined_slates, inputs, split)
        )


class BuildExamples(beam.PTransform):
    """The finished log and its posting lists to windows and examples."""

    def __init__(self, inputs: PipelineInputs, postings: dict[str, beam.PCollection]) -> None:
        super().__init__()
        self._inputs, self._postings = inputs, postings

    def expand(self, log_and_boundaries: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        log, boundaries = log_and_boundaries
        inputs = self._inputs
        start = log.pipeline | "StartExamples" >> beam.Create([None], reshuffle=False)
        start | "WriteWindows" >> beam.Map(
            example_steps.write_windows, inputs, AsSingleton(boundaries), AsSingleton(log)
        )
        targets = (
            start
            | "ListTargets"
            >> beam.FlatMap(
                example_steps.list_target_batches,
                inputs,
                AsSingleton(boundaries),
                AsSingleton(self._postings["counts"]),
            )
            | "SpreadTargets" >> beam.Reshuffle()
        )
        join = JoinByKey(inputs, self._postings) if inputs.is_grouped else BuildSlates(inputs)
        slates = [(targets, boundaries) | "FindNeighbours" >> join]
        if inputs.previous:
            kept = start | "ListKeptTargets" >> beam.Map(
                example_steps.list_kept_targets, inputs, AsSingleton(boundaries), AsSingleton(log)
            )
            slates.append(
                start
                | "ListExampleFiles" >> beam.FlatMap(append_steps.list_example_files, inputs)
                | "SpreadExampleFiles" >> beam.Reshuffle()
                | "ReadExamples" >> beam.FlatMap(append_steps.read_examples, inputs, AsSingleton(kept))
            )
        return (
            slates
            | "JoinSlates" >> beam.Flatten()
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
    times = [parsed.batches | "CountTimes" >> beam.Map(log_steps.count_batch_times)]
    batches = parsed.batches
    if inputs.previous:
        rows = (
            root
            | "StartRows" >> beam.Create([None], reshuffle=False)
            | "ListLogShards" >> beam.FlatMap(append_steps.list_log_shards, inputs)
            | "SpreadLogShards" >> beam.Reshuffle()
            | "ReadLogShards" >> beam.FlatMap(append_steps.read_log_shard, inputs)
        )
        previous_times = rows | "CountPreviousTimes" >> beam.Map(log_steps.count_batch_times)
        times.append(previous_times)
        last = previous_times | "JoinPreviousTimes" >> beam.CombineGlobally(log_steps.JoinTimes())
        batches = batches | "CheckLater" >> beam.Map(append_steps.check_later, inputs, AsSingleton(last))
    all_times = times | "FlattenTimes" >> beam.Flatten() | "JoinTimes" >> beam.CombineGlobally(log_steps.JoinTimes())
    boundaries = all_times | "FindBoundaries" >> beam.Map(log_steps.write_boundaries, inputs, AsSingleton(read))
    vocabularies = batches | "BuildVocabularies" >> BuildVocabularies(inputs)
    encoded = batches | "EncodeBatches" >> beam.Map(log_steps.encode_with, inputs, AsIter(vocabularies))
    if inputs.previous:
        encoded = [rows, encoded] | "JoinRows" >> beam.Flatten()
    log = (encoded, boundaries) | "BuildLog" >> BuildLog(inputs)
    postings = (log, boundaries) | "BuildPostings" >> BuildPostings(inputs)
    (log, boundaries) | "BuildExamples" >> BuildExamples(inputs, postings)
    if inputs.config.transitions:
        (log, all_times, boundaries) | "BuildTransitions" >> BuildTransitions(inputs)
