"""What was to be shown, beside what was measured. A target that is not met is said, and ends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.serving.load import ONE_CORE
from serving.ranking_messages import RANK_KNOWN_USER_SIGNATURE

_CANDIDATES = 100
_MAX_RATIO, _MAX_IN_PROCESS_MS, _MIN_SPEEDUP = 1.3, 8.0, 3.0
_MAX_LOAD_SECONDS = 5.0
_RESTART_FACTOR = 1.2  # two starts of the same server differ by so much
_MAX_DIFFERENCE = 1e-5
_MAX_SLOPE_BYTES = 100.0  # 10 MB over 100,000 requests


class Target(NamedTuple):
    """One target.

    Attributes:
        what: what is measured.
        limit: the target, for people.
        measured: the number, for people.
        is_met: whether it is; None where nothing was aimed at, and the number stands beside one that is judged.
    """

    what: str
    limit: str
    measured: str
    is_met: bool | None


def find_targets(results: Mapping[str, Any]) -> list[Target]:
    """The targets of the parts that were measured."""
    return [*_find_speed_targets(results), *_find_fault_targets(results)]


def find_row(rows: list[dict[str, Any]], way: str, candidates: int, clients: int) -> dict[str, Any] | None:
    """The row of `rank_known_user`; None where it was not measured."""
    wanted = {"way": way, "candidates": candidates, "clients": clients, "signature": RANK_KNOWN_USER_SIGNATURE}
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _find_speed_targets(results: Mapping[str, Any]) -> Iterator[Target]:
    load, otherwise = results.get("load", []), results.get("otherwise", [])
    name = f"{RANK_KNOWN_USER_SIGNATURE}, {_CANDIDATES} candidates"
    called, served, apart = (
        find_row(load, way, _CANDIDATES, 1) for way in (f"in process{ONE_CORE}", f"gRPC{ONE_CORE}", "gRPC")
    )
    if called is not None and served is not None:
        p50, ratio = called["p50"], served["ratio"]
        limit = f"at most {_MAX_IN_PROCESS_MS:g} ms"
        yield Target(f"p50 in process{ONE_CORE}, {name}", limit, f"{p50:.2f} ms", p50 <= _MAX_IN_PROCESS_MS)
        limit = f"at most {_MAX_RATIO:g}"
        yield Target(f"p50 over gRPC / in process{ONE_CORE}, {name}", limit, f"{ratio:.2f}", ratio <= _MAX_RATIO)
    if apart is not None:
        yield Target(f"p50 over gRPC / in process, two cores, {name}", "none", f"{apart['ratio']:.2f}", None)
    if load:
        seconds = load[0]["load_seconds"]
        yield Target(
            "loading in process", f"at most {_MAX_LOAD_SECONDS:g} s", f"{seconds:.1f} s", seconds <= _MAX_LOAD_SECONDS
        )
    many, other = find_row(load, "gRPC", _CANDIDATES, 32), find_row(otherwise, "tantivy", _CANDIDATES, 32)
    if many is not None and other is not None:
        factor = many["requests_per_second"] / max(other["requests_per_second"], 1e-9)
        yield Target(
            f"throughput at 32 clients / tantivy's, {_CANDIDATES} candidates",
            f"at least {_MIN_SPEEDUP:g}",
            f"{factor:.1f}",
            factor >= _MIN_SPEEDUP,
        )


def _find_fault_targets(results: Mapping[str, Any]) -> Iterator[Target]:
    if "swap" in results:
        swap = results["swap"]
        failed = sum(swap["failures"].values())
        is_met = failed == 0 and swap["answers_of_old"] > 0 and swap["answers_of_new"] > 0
        yield Target("failed requests in a hot swap, 8 clients", "0", str(failed), is_met)
    if "restart" in results:
        yield from _find_kill_targets(results["restart"], results.get("load", []))
    if "malformed" in results:
        malformed = results["malformed"]
        unexpected, wrong = malformed["unexpected"], malformed["wrong_answers"]
        yield Target(
            f"wrong statuses of {malformed['sent']:,} malformed requests", "0", str(unexpected), unexpected == 0
        )
        yield Target(f"wrong answers of {malformed['checked']} well-formed ones between", "0", str(wrong), wrong == 0)
    if "memory" in results:
        memory = results["memory"]
        asked, slope = memory["steps"][-1]["requests"], memory["slope"]
        yield Target(
            f"growth over {asked:,} requests",
            f"at most {_MAX_SLOPE_BYTES:g} B a request",
            f"{slope:.0f} B",
            slope <= _MAX_SLOPE_BYTES,
        )


def _find_kill_targets(restart: Mapping[str, Any], load: list[dict[str, Any]]) -> Iterator[Target]:
    if load:
        seconds, loading = restart["takeover_seconds"], load[0]["load_seconds"]
        what = "first answer after a kill, a standby waiting, beside loading in process"
        yield Target(what, f"{loading:.1f} s", f"{seconds:.2f} s", seconds <= loading)
    seconds, calm = restart["restart_seconds"], max(restart["first_start_seconds"], restart["calm_start_seconds"])
    what = "first answer after a kill, started again, beside a start without clients"
    yield Target(what, f"{calm:.1f} s (+20 %)", f"{seconds:.1f} s", seconds <= _RESTART_FACTOR * calm)
    for way, name in (("takeover", "a standby waiting"), ("restart", "started again")):
        difference = restart[f"{way}_largest_difference"]
        limit, is_met = f"at most {_MAX_DIFFERENCE:g}", difference <= _MAX_DIFFERENCE
        yield Target(f"answers after a kill, {name}, difference", limit, f"{difference:.1g}", is_met)
