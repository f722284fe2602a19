"""Predictions to look at: a target, its neighbours, and what they did before and after."""

import datetime
from collections.abc import Mapping

import numpy as np

from tf_lift.data.dataset_files import Dataset
from tf_lift.report import WorkedNeighbour, WorkedPrediction
from tf_lift.schema import FIRST_VALUE_ID


def build_worked_predictions(dataset: Dataset, batch: Mapping[str, np.ndarray], count: int) -> list[WorkedPrediction]:
    """The first slates of the test split (whose order is drawn), each with its candidate of the highest probability.

    Args:
        dataset: the data set.
        batch: a parsed batch with `probability` [B, C] and `attention` [B, C, K].
        count: how many.
    """
    return [_work(dataset, batch, index) for index in range(min(count, len(batch["row"])))]


def describe_item(dataset: Dataset, fields: np.ndarray) -> str:
    """An item's first known attribute and its identifier.

    Args:
        dataset: the data set.
        fields: int32 [M] ids.
    """
    schema, vocabularies = dataset.config.schema, dataset.info.vocabularies
    attributes = [
        index for index in schema.indices("item") if index != schema.item_index and fields[index] >= FIRST_VALUE_ID
    ]
    words = [vocabularies[index].value(int(fields[index])) for index in attributes[:1]]
    return " ".join([*words, f"#{vocabularies[schema.item_index].value(int(fields[schema.item_index]))}"])


def _work(dataset: Dataset, batch: Mapping[str, np.ndarray], index: int) -> WorkedPrediction:
    log = dataset.log
    row, time = int(batch["row"][index]), int(batch["time"][index])
    place = int(np.argmax(np.where(batch["mask"][index], batch["probability"][index], -1.0)))
    user = int(log.fields[row, dataset.config.schema.user_index]) - FIRST_VALUE_ID
    end = int(log.rows_before(np.array([user + FIRST_VALUE_ID]), np.array([time]))[0])
    start = max(int(log.user_starts[user]), end - dataset.config.retrieval.context_length)
    fields = batch["fields"][index, place]
    neighbours = [
        _neighbour(dataset, fields, batch, (index, place, slot))
        for slot in range(batch["neighbour_rows"].shape[2])
        if batch["neighbour_rows"][index, place, slot] >= 0
    ]
    return WorkedPrediction(
        target=_describe(dataset, fields),
        label=int(batch["label"][index, place]),
        probability=float(batch["probability"][index, place]),
        time=_format_time(time),
        history=_describe_rows(dataset, start, end),
        neighbours=neighbours,
    )


def _neighbour(
    dataset: Dataset, target: np.ndarray, batch: Mapping[str, np.ndarray], slot: tuple[int, int, int]
) -> WorkedNeighbour:
    log, schema = dataset.log, dataset.config.schema
    row = int(batch["neighbour_rows"][slot])
    fields = log.fields[row]
    user = int(fields[schema.user_index]) - FIRST_VALUE_ID
    first = max(int(log.user_starts[user]), row - dataset.config.retrieval.context_length)
    matched = (fields == target) & (fields >= FIRST_VALUE_ID)
    described = _describe(dataset, fields)
    return WorkedNeighbour(
        description=described,
        matched=frozenset(name for name, same in zip(schema.names, matched, strict=True) if same and name in described),
        label=int(dataset.positive[row]),
        time=_format_time(int(log.time[row])),
        score=float(batch["neighbour_scores"][slot]),
        attention=float(batch["attention"][slot]),
        before=_describe_rows(dataset, first, row),
        after=_describe_rows(dataset, row + 1, row + 1 + int(batch["neighbour_num_future"][slot])),
    )


def _describe(dataset: Dataset, fields: np.ndarray) -> dict[str, str]:
    values = zip(dataset.config.schema.names, dataset.info.vocabularies, fields.tolist(), strict=True)
    return {name: vocabulary.value(value) for name, vocabulary, value in values if value > 0}


def _describe_rows(dataset: Dataset, first: int, stop: int) -> list[str]:
    marks = (
        [""] * (stop - first)
        if dataset.config.behaviour.kind == "positive_only"
        else ["+ " if positive else "- " for positive in dataset.positive[first:stop]]
    )
    return [
        mark + describe_item(dataset, fields)
        for mark, fields in zip(marks, dataset.log.fields[first:stop], strict=True)
    ]


def _format_time(time: int) -> str:
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=time)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
