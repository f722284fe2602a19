"""Turns the texts of a column into numbers: times and behaviours. Each distinct text is parsed once."""

import datetime
import decimal
import functools
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tf_lift.config import Behaviour

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_EARLIEST = -62_135_596_800  # epoch seconds of 0001-01-01
_END_OF_TIME = 253_402_300_800  # epoch seconds of 10000-01-01
_UNIT_TO_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_SECONDS_PER_DAY = 86_400
_SHOWN_LENGTH = 80  # characters of a text that a reason quotes


def parse_times(texts: pa.Array, time_format: str) -> tuple[np.ndarray, dict[int, str]]:
    """Parses times.

    Args:
        texts: [n] string.
        time_format: `source.time_format`.

    Returns:
        [n] int64 epoch seconds, rounded down, 0 where the text is no time; and a reason for each such index.
    """
    if time_format == "epoch_seconds":
        return map_texts(texts, functools.partial(_floor_epoch, units_per_second=1))
    if time_format == "epoch_milliseconds":
        return map_texts(texts, functools.partial(_floor_epoch, units_per_second=1000))
    if time_format == "iso":
        return map_texts(texts, parse_iso_time)
    return map_texts(texts, functools.partial(_parse_pattern, pattern=time_format))


def is_time_type(data_type: pa.DataType) -> bool:
    """Whether Parquet values of this type are times in themselves, whatever `time_format` says."""
    return bool(pa.types.is_timestamp(data_type) or pa.types.is_date(data_type))


def convert_times(times: pa.Array) -> tuple[np.ndarray, dict[int, str]]:
    """`parse_times` for Parquet timestamps and dates of any unit; those without a zone are UTC.

    Args:
        times: [n] timestamp or date; null where there is no time.
    """
    if pa.types.is_timestamp(times.type):
        ticks, per_second, seconds_per_tick = times.cast(pa.int64()), _UNIT_TO_PER_SECOND[times.type.unit], 1
    else:
        days = times.cast(pa.date32()).cast(pa.int32())
        ticks, per_second, seconds_per_tick = days.cast(pa.int64()), 1, _SECONDS_PER_DAY
    seconds = pc.fill_null(ticks, 0).to_numpy(zero_copy_only=False) // per_second * seconds_per_tick
    missing = np.flatnonzero(times.is_null().to_numpy(zero_copy_only=False))
    return seconds.astype(np.int64), {int(index): "time is empty" for index in missing}


def parse_iso_time(text: str) -> int:
    """Epoch seconds, rounded down, of an ISO 8601 time; UTC where no zone is given."""
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(_describe("time", text, "is not ISO 8601")) from None
    return _floor_moment(moment)


def parse_behaviours(texts: pa.Array, behaviour: Behaviour) -> tuple[np.ndarray, dict[int, str]]:
    """Parses behaviours of every kind but `positive_only`.

    Args:
        texts: [n] string, the column `behaviour.column`.
        behaviour: says what they mean.

    Returns:
        [n] int8 classes, 0 where the text is no behaviour; and a reason for each such index.
    """
    if behaviour.kind == "column":
        parse: Callable[[str], int] = _parse_label
    elif behaviour.kind == "threshold":
        parse = functools.partial(_compare, threshold=behaviour.threshold)
    else:
        parse = functools.partial(_find_class, classes=behaviour.classes)
    classes, reasons = map_texts(texts, parse)
    return classes.astype(np.int8), reasons


def map_texts(texts: pa.Array, parse: Callable[[str], int]) -> tuple[np.ndarray, dict[int, str]]:
    """Applies a function to each distinct text.

    Args:
        texts: [n] string without nulls.
        parse: text -> number; its ValueError's message is the reason why a text is none.

    Returns:
        [n] int64, 0 where there is a reason; and the reason for each such index.
    """
    encoded = texts.dictionary_encode()
    numbers = np.zeros(len(encoded.dictionary), np.int64)
    failures: dict[int, str] = {}
    for code, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            numbers[code] = parse(text)
        except ValueError as error:
            failures[code] = str(error)
    codes = encoded.indices.to_numpy()
    failed = np.flatnonzero(np.isin(codes, list(failures))) if failures else ()
    return numbers[codes], {int(index): failures[int(codes[index])] for index in failed}


def _floor_epoch(text: str, units_per_second: int) -> int:
    if text.isascii() and text.isdigit() and len(text) < 18:
        number = int(text)
    elif _NUMBER.fullmatch(text):
        number = int(decimal.Decimal(text).to_integral_value(decimal.ROUND_FLOOR))
    else:
        raise ValueError(_describe("time", text, "is not a number"))
    seconds = number // units_per_second
    if not _EARLIEST <= seconds < _END_OF_TIME:
        raise ValueError(_describe("time", text, "is not within the years 1 to 9999"))
    return seconds


def _parse_pattern(text: str, pattern: str) -> int:
    try:
        moment = datetime.datetime.strptime(text, pattern)
    except ValueError:
        raise ValueError(_describe("time", text, f"does not match {pattern!r}")) from None
    return _floor_moment(moment)


def _floor_moment(moment: datetime.datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH) // datetime.timedelta(seconds=1)


def _parse_label(text: str) -> int:
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return int(lowered == "true")
    if _NUMBER.fullmatch(text) and float(text) in (0.0, 1.0):
        return int(float(text))
    raise ValueError(_describe("behaviour", text, "is not 0 or 1"))


def _compare(text: str, threshold: float) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(_describe("behaviour", text, "is not a number"))
    return int(float(text) >= threshold)


def _find_class(text: str, classes: dict[str, int]) -> int:
    if text not in classes:
        raise ValueError(f"behaviour {text[:_SHOWN_LENGTH]!r} is not in behaviour.classes")
    return classes[text]


def _describe(role: str, text: str, problem: str) -> str:
    return f"{role} {problem}: {text[:_SHOWN_LENGTH]!r}" if text else f"{role} is empty"
