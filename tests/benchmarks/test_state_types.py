"""What int8 states cost: that both types are measured, and that the rounding is seen."""

from typing import Any

from benchmarks import state_types


def test_both_types_are_measured_on_the_test_split(tiny: Any) -> None:
    rows = state_types.run(tiny.trained())
    exact, rounded = rows["float16"], rows["int8"]
    assert exact["largest_difference"] == 0 < rounded["largest_difference"] < 0.05
    assert exact["megabytes"] == 2 * rounded["megabytes"]
    assert abs(exact["auc"] - rounded["auc"]) < 0.05 and exact["auc"] != 0.5
