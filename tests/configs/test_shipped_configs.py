"""Every shipped configuration loads, and reads invented files in the format of its published data."""

import dataclasses
from pathlib import Path

import pytest

from beam.field_columns import FieldColumns, find_field_columns
from beam.files import expand_paths
from beam.parse_interactions import ParsedAttributes, ParsedInteractions, parse_attributes, parse_interactions
from beam.parse_values import parse_iso_time
from beam.read_source import read_chunks
from tf_lift.config import Config, load_config
from tf_lift.workspace import Workspace

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
FIXTURES = ROOT / "tests" / "fixtures"
DAY = 86_400  # seconds


def _read(config: Config) -> tuple[ParsedInteractions, list[ParsedAttributes]]:
    """The log and the attribute tables of a configuration, each of one chunk."""
    columns = find_field_columns(config)
    (path,) = expand_paths(config.source.paths)
    (chunk,) = read_chunks(path, 0, config.source, config.pipeline.rows_per_batch)
    tables = []
    for table, table_columns in zip(config.source.attributes, columns.attributes, strict=True):
        (table_path,) = expand_paths(table.paths)
        (table_chunk,) = read_chunks(table_path, 0, table, config.pipeline.rows_per_batch)
        tables.append(parse_attributes(table_chunk, table, table_columns, config.schema))
    return parse_interactions(chunk, config, columns.log), tables


def _rows(parsed: ParsedInteractions) -> list[tuple]:
    fields = zip(*(values.to_pylist() for values in parsed.fields.values()), strict=True)
    return [(*row, time) for row, time in zip(fields, parsed.time.tolist(), strict=True)]


def _table_rows(parsed: ParsedAttributes) -> dict[str, tuple[str, ...]]:
    rows = zip(*(values.to_pylist() for values in parsed.fields.values()), strict=True)
    return dict(zip(parsed.keys.to_pylist(), rows, strict=True))


def _rejected(parsed: ParsedInteractions | ParsedAttributes) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in parsed.rejected]


def _load(name: str, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Config:
    monkeypatch.setenv("TF_LIFT_DATA", str(FIXTURES))
    return load_config(CONFIGS / f"{name}.toml", overrides)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_config_loads_and_is_named_for_its_file(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.schema.query_indices


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablations").glob("*.toml")), ids=lambda path: path.stem)
def test_ablations_share_their_data_set_and_nothing_that_is_trained(path: Path) -> None:
    config = load_config(path)
    whole = load_config(CONFIGS / f"{config.name}.toml")
    assert Workspace(config).fingerprint("dataset") == Workspace(whole).fingerprint("dataset")
    assert Workspace(config).stage_dir("fit") != Workspace(whole).stage_dir("fit")


@pytest.mark.parametrize("name", ["taobao", "tmall", "alipay", "lastfm_1k"])
def test_click_sets_follow_the_paper_protocol(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load(name, monkeypatch)
    assert (config.split.mode, config.split.train_rate, config.split.test_rate) == ("static", 0.1, 0.1)
    negatives = config.negatives
    assert (negatives.protocol, negatives.per_target, negatives.own_share, negatives.per_pool_row) == ("rim", 1, 0.5, 1)


def _query_names(config: Config) -> list[str]:
    return [config.fields[index].name for index in config.schema.query_indices]


def test_ml_1m_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    rolling, rim, honest = (_load(name, monkeypatch) for name in ("ml_1m", "ml_1m_rim", "ml_1m_honest"))
    assert rolling.source == rim.source == honest.source
    assert "gender" in _query_names(rolling) and "gender" not in _query_names(rim)
    assert rim.fields == honest.fields and rim.split == honest.split
    assert (rim.split.train_from, rim.split.test_from) == (1016721056, 1029360424)
    assert (rim.negatives.own_share, rim.negatives.per_pool_row, rim.negatives.per_target) == (0.1, 1, 100)
    positives = _load("ml_1m_rim_positives", monkeypatch)
    assert (positives.fields, positives.split, positives.data_seed) == (rim.fields, rim.split, rim.data_seed)
    same = dataclasses.replace(positives.negatives, drawn_rows="keep", new_items=rim.negatives.new_items)
    assert same == rim.negatives and positives.negatives.drawn_rows == "drop"
    assert (honest.negatives.new_items, honest.negatives.per_pool_row, honest.negatives.per_target) == ("keep", 0, 100)
    assert (rolling.behaviour.kind, rim.behaviour.kind, honest.behaviour.kind) == (
        "threshold",
        "positive_only",
        "positive_only",
    )


def test_taobao(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load("taobao", monkeypatch, 'source.paths=["${TF_LIFT_DATA}/taobao/UserBehavior.csv"]')
    assert _query_names(config) == ["user", "item", "category"]
    parsed, _ = _read(config)
    assert list(parsed.fields) == ["user", "item", "category", "behaviour_type"]
    assert _rows(parsed) == [
        ("1", "2268318", "2520377", "pv", 1511544070),
        ("1", "2333346", "2520771", "cart", 1511561733),
        ("2", "2268318", "2520377", "buy", 1512144000),
        ("3", "901", "77", "fav", 1512316799),
    ]
    assert parsed.behaviour.tolist() == [1, 1, 1, 1]
    assert _rejected(parsed) == [(4, "time is not a number: '2017-12-02'")]
    assert parsed.left_out == {"before source.time_from": 1, "at or after source.time_until": 1}


def test_tmall(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load("tmall", monkeypatch)
    assert _query_names(config) == ["user", "item", "category", "seller", "brand"]
    assert find_field_columns(config).attributes == ({"age": "age_range", "gender": "gender"},)
    parsed, (users,) = _read(config)
    assert list(parsed.fields) == ["user", "item", "category", "seller", "brand", "action"]
    new_year = parse_iso_time("1900-01-01")
    assert _rows(parsed) == [
        ("328862", "323294", "833", "2882", "2661", "0", new_year + 240 * DAY),
        ("328862", "844400", "1271", "2882", "", "2", parse_iso_time(str(config.split.test_from))),
        ("234512", "575153", "1271", "2882", "2661", "3", new_year + 130 * DAY),
    ]
    assert max(parsed.time) < 0
    assert _rejected(parsed) == [(4, "time does not match '%m%d': '1131'")]
    assert _table_rows(users) == {"328862": ("6", "1"), "234512": ("", "0")}
    assert _rejected(users) == [(4, "user_id is empty")]


def test_alipay(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load("alipay", monkeypatch)
    assert _query_names(config) == ["user", "seller", "item", "category"]
    parsed, _ = _read(config)
    train_from = parse_iso_time(str(config.split.train_from))
    assert _rows(parsed) == [
        ("1980536", "9666", "1893653", "1032", "0", train_from - DAY),
        ("1980536", "9666", "1893653", "1032", "1", train_from),
        ("33160", "323", "1579026", "4", "0", parse_iso_time(str(config.split.test_from))),
    ]
    assert _rejected(parsed) == [(4, "expected 6 columns, received 5")]


def test_lastfm_1k(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load("lastfm_1k", monkeypatch)
    assert _query_names(config) == ["user", "artist", "track", "country"]
    assert find_field_columns(config) == FieldColumns(
        {"user": "user", "artist": "artid", "track": "traid"},
        ({"gender": "gender", "age": "age", "country": "country"},),
    )
    parsed, (users,) = _read(config)
    artist, track = "a7f7df4a-77d8-4f12-8acd-5c60c93f4de8", "00000000-0000-4000-8000-00000000000"
    assert _rows(parsed) == [
        ("user_000001", "f1b1cf71-bd35-4e99-8624-24a6e15f133a", f"{track}1", 1241478537),
        ("user_000001", artist, f"{track}2", 1241445250),
        ("user_000002", "", f"{track}3", 1155477560),
    ]
    assert _rejected(parsed) == [(3, "track is empty"), (4, "time is not ISO 8601: '2006-08-13 at noon'")]
    assert _table_rows(users) == {"user_000001": ("m", "", "Japan"), "user_000002": ("f", "", "Peru")}
    assert _rejected(users) == [(4, "expected 5 columns, received 4")]


def test_amazon_beauty(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load("amazon_beauty", monkeypatch)
    assert _query_names(config) == ["user", "item", "brand", "last"]
    assert (config.negatives.protocol, config.split.mode) == ("honest", "rolling")
    parsed, (items,) = _read(config)
    assert _rows(parsed) == [("7", "1", 1318896000), ("7", "20", 1318982400), ("8", "300", 1318982400)]
    assert _rejected(parsed) == [(5, "time is not a number: 'yesterday'")]
    assert _table_rows(items) == {"1": ("173", "1", "171"), "20": ("44", "", "44"), "300": ("17", "2", "2")}
    assert _rejected(items) == []


def test_taobao_sample_in_both_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, rim, honest = (_load(name, monkeypatch) for name in ("taobao", "taobao_sample", "taobao_sample_honest"))
    assert whole.source == rim.source == honest.source and whole.negatives == rim.negatives
    assert rim.split == dataclasses.replace(whole.split, train_rate=1.0, test_rate=1.0)
    assert (honest.split.mode, honest.split.test_from) == ("rolling", rim.split.test_from)
    assert (honest.negatives.protocol, honest.negatives.per_target) == ("honest", 100)
