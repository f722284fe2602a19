"""What written examples say of the pool, against a scan of the log's rows that uses none of the project's retrieval."""

import math

import numpy as np
import pytest

MODES = ("static", "rolling")
FIELDS = ("user", "age", "item", "genre", "brand", "channel")
DETERMINED = {"user": {"age"}, "item": {"genre", "brand"}}


def rows_of(log):
    """The log's rows sorted by user's first appearance, time and input order: (values, time, label)."""
    values = [
        (
            f"u{user}",
            f"a{user % 5}",
            f"i{item}",
            f"g{item % 4}" if item % 10 else "",
            f"b{item % 7}",
            f"c{channel}",
        )
        for user, item, channel in zip(log.user.tolist(), log.item.tolist(), log.channel.tolist(), strict=True)
    ]
    rows = list(zip(values, log.time.tolist(), (log.rating >= 4).tolist(), range(len(log)), strict=True))
    first = {}
    for value, time, _, _ in rows:
        first[value[0]] = min(first.get(value[0], (math.inf, "")), (time, value[0]))
    return sorted(rows, key=lambda row: (first[row[0][0]], row[1], row[3]))


def idf(num_rows: int, num_matches: int, kind: str) -> int:
    odds = (num_rows - num_matches + 0.5) / (num_matches + 0.5)
    return round(max(math.log(odds if kind == "paper" else 1 + odds), 0.0) * 2**20)


def closed_sets(output):
    """The fields of each statistic of an example, as names."""
    sets = output.dataset.info.match_sets.sets
    names = [{FIELDS[field] for field in sets[index]} for index in output.dataset.info.statistic_sets]
    for fields in names:
        assert all(DETERMINED.get(field, set()) <= fields for field in fields)
    return names


def scan(rows, target, mode, boundary, retrieval):
    """Best rows, their scores and visible futures, by looking at every row."""
    values, time = target[0], target[1]
    pool = [index for index, row in enumerate(rows) if row[1] < (time if mode == "rolling" else boundary)]
    known = [
        bool(value) and any(row[0][field] == value for row in rows if row[1] < time)
        for field, value in enumerate(values)
    ]
    weights = []
    for field, value in enumerate(values):
        matches = sum(rows[index][0][field] == value for index in pool) if known[field] else 0
        weights.append(idf(len(pool), matches, retrieval.idf) if matches else 0)
    scored = []
    for index in pool:
        same = [field for field in range(6) if known[field] and rows[index][0][field] == values[field]]
        if same and not (retrieval.exclude_own_user and rows[index][0][0] == values[0]):
            scored.append((sum(weights[field] for field in same), index))

    def rank(entry):
        score, index = entry
        own = [other for other in rows[index + 1 :] if other[0][0] == rows[index][0][0]]
        future = sum(other[1] < boundary for other in own)
        return score, mode == "rolling" or future >= retrieval.min_future, rows[index][1], index

    best = sorted(scored, key=rank, reverse=True)[: retrieval.num_neighbours]
    futures = []
    for _, index in best:
        own = [other for other in rows[index + 1 :] if other[0][0] == rows[index][0][0]][: retrieval.context_length]
        futures.append(sum(other[1] < time for other in own))
    return pool, known, best, futures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "retrieval",
    [{}, {"idf": "paper", "exclude_own_user": True, "min_future": 2, "num_neighbours": 4}],
    ids=["default", "paper"],
)
def test_neighbours_equal_a_scan_of_the_log(kit, mode, retrieval):
    log, output = kit.base(mode, "none")
    if retrieval:
        output = kit.run(log, mode, retrieval=retrieval)
    rows, slates, contents = rows_of(log), output.slates, output.row_contents
    assert [(row[0], row[1], int(row[2])) for row in rows] == [
        (content[:6], content[6], content[7]) for content in contents
    ]
    sets = closed_sets(output)
    chosen = np.random.default_rng(1).permutation(len(output.serialized))[:40]
    for index in chosen.tolist():
        target = rows[slates["row"][index]]
        pool, known, best, futures = scan(rows, target, mode, kit.train_from, output.config.retrieval)
        num = len(best)
        assert slates["neighbour_rows"][index, 0].tolist() == [row for _, row in best] + [-1] * (
            len(slates["neighbour_rows"][index, 0]) - num
        )
        scores = np.array([score for score, _ in best]) / 2**20
        np.testing.assert_array_equal(slates["neighbour_scores"][index, 0, :num], scores.astype(np.float32))
        assert slates["neighbour_num_future"][index, 0, :num].tolist() == futures
        assert not slates["neighbour_num_future"][index, 0, num:].any()
        values = [
            value if is_known else "(unknown)" if value else ""
            for value, is_known in zip(target[0], known, strict=True)
        ]
        assert [
            output.value(name, value) for name, value in zip(FIELDS, slates["fields"][index, 0], strict=True)
        ] == values
        assert slates["label"][index, 0] == target[2]
        for place, fields in enumerate(sets):
            generators = [
                FIELDS.index(name) for name in fields if not any(name in DETERMINED.get(other, ()) for other in fields)
            ]
            matching = [
                row
                for row in pool
                if all(known[field] and rows[row][0][field] == target[0][field] for field in generators)
            ]
            assert slates["match_counts"][index, 0, place] == len(matching)
            assert slates["match_positives"][index, 0, place] == sum(rows[row][2] for row in matching)
        history = [row for row in rows if row[0][0] == target[0][0] and row[1] < target[1]][
            -output.config.retrieval.context_length :
        ]
        first, count = output.dataset.log.windows_at(
            slates["history_position"][index], output.config.retrieval.context_length
        )
        assert [content[:7] for content in contents[first : first + count]] == [(*row[0], row[1]) for row in history]
