"""Times as texts, read to the second."""

import datetime
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam.parse_values import parse_iso_time, parse_times


class TestTimes:
    @pytest.mark.parametrize(
        ("time_format", "text", "seconds"),
        [
            ("epoch_seconds", "978300760", 978300760),
            ("epoch_seconds", "978300760.999999999999999999", 978300760),
            ("epoch_seconds", "-0.5", -1),
            ("epoch_seconds", " 1.5e9 ", 1_500_000_000),
            ("epoch_milliseconds", "1511544070999", 1511544070),
            ("epoch_milliseconds", "-1", -1),
            ("iso", "2009-05-04T23:08:57Z", 1241478537),
            ("iso", "2009-05-04T23:08:57.9+02:00", 1241471337),
            ("iso", "2017-01-01 11:53:26", 1483271606),
            ("iso", "1969-12-31T23:59:59.5", -1),
            ("%m%d", "0829", -2188252800),
            ("%Y%m%d", "20151120", 1447977600),
            ("%d/%m/%Y %H:%M %z", "01/01/1970 01:00 +0100", 0),
        ],
    )
    def test_formats(self, time_format: str, text: str, seconds: int) -> None:
        times, reasons = parse_times(pa.array([text]), time_format)
        assert (times.tolist(), times.dtype, reasons) == ([seconds], np.int64, {})

    @pytest.mark.parametrize(
        ("time_format", "text", "reason"),
        [
            ("epoch_seconds", "abc", "time is not a number: 'abc'"),
            ("epoch_seconds", "0x10", "time is not a number: '0x10'"),
            ("epoch_seconds", "nan", "time is not a number: 'nan'"),
            ("epoch_seconds", "١", "time is not a number: '١'"),
            ("epoch_seconds", "1511544070000", "time is not within the years 1 to 9999: '1511544070000'"),
            ("epoch_seconds", "1e999", "time is not within the years 1 to 9999: '1e999'"),
            ("epoch_milliseconds", "", "time is empty"),
            ("iso", "yesterday", "time is not ISO 8601: 'yesterday'"),
            ("%m%d", "1131", "time does not match '%m%d': '1131'"),
        ],
    )
    def test_reasons(self, time_format: str, text: str, reason: str) -> None:
        times, reasons = parse_times(pa.array(["0101", text, text]), time_format)
        assert {index: why for index, why in reasons.items() if index} == {1: reason, 2: reason}
        assert times[1:].tolist() == [0, 0]

    @given(st.datetimes(timezones=st.timezones()))
    def test_iso_is_the_floor_of_the_exact_time(self, moment: datetime.datetime) -> None:
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        assert parse_iso_time(moment.isoformat()) == math.floor(
            decimal.Decimal((moment - epoch) // datetime.timedelta(microseconds=1)) / 1_000_000
        )

    @given(st.decimals(-(10**10), 10**10, allow_nan=False, places=6))
    def test_decimals_are_floored_exactly(self, number: decimal.Decimal) -> None:
        assert parse_times(pa.array([str(number)]), "epoch_seconds")[0].tolist() == [math.floor(number)]
