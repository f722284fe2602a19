"""Reading and checking configurations."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_lift.config import Config, load_config, parse_assignments
from tf_lift.schema import Field, Schema

MINIMAL = """
name = "toy"
fields = [{ name = "user", entity = "user", key = true }, { name = "item", entity = "item", key = true }]
[source]
paths = ["log.csv"]
[negatives]
protocol = "honest"
"""
_LABELLED = ("behaviour.kind='column'", "behaviour.column='label'", "negatives.protocol='none'")


def _load(folder: Path, text: str = MINIMAL, *overrides: str) -> Config:
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def test_minimal(tmp_path: Path) -> None:
    config = _load(tmp_path)
    assert config.source.paths == ("log.csv",)
    assert config.fields == (Field("user", "user", key=True), Field("item", "item", key=True))
    assert config.schema.user_index == 0 and config.schema.item_index == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sead=1"], r"Unknown key 'sead' in the configuration\. Did you mean 'seed'\?"),
        (["encoder.embeding_dim=1"], r"Unknown key 'embeding_dim' in \[encoder\]\. Did you mean 'embedding_dim'\?"),
        (["split.qqqq=1"], r"Unknown key 'qqqq' in \[split\]\. Known keys: mode, by, "),
        (
            ["fields=[{name='a', entity='user', kee=true}]"],
            r"Unknown key 'kee' in \[fields\[0\]\]\. Did you mean 'key'\?",
        ),
        (["fields=[{name='a'}]"], r"\[fields\[0\]\] must set entity\. Received: \['name'\]"),
        (["source={}"], r"\[source\] must set paths\. Received: \[\]"),
        (["seed='1'"], r"`seed` must be int\. Received: '1', a str"),
        (["seed=true"], r"`seed` must be int\. Received: True, a bool"),
        (["seed=1.5"], r"`seed` must be int\. Received: 1\.5, a float"),
        (["encoder.dropout_rate='a'"], r"`encoder\.dropout_rate` must be float\. Received: 'a'"),
        (["source.paths=log.csv"], r"`source\.paths` must be a list\. Received: 'log\.csv'"),
        (["source.paths=[1]"], r"`source\.paths\[0\]` must be str\. Received: 1, a int"),
        (
            ["source.format='parket'"],
            r"`source\.format` must be one of .*'parquet'\. Received: 'parket'\. Did you mean 'parquet'\?",
        ),
        (["split.train_from=[1]"], r"`split\.train_from` must be float or str\. Received: \[1\]"),
        (["behaviour.classes=1"], r"`behaviour\.classes` must be a table\. Received: 1"),
        (["behaviour.classes={a='x'}"], r"`behaviour\.classes\.a` must be int\. Received: 'x'"),
        (["encoder=3"], r"`encoder` must be a table\. Received: 3"),
        (["seed"], r"must read section\.key=value\. Received: 'seed'"),
        (["seed.x=1", "seed.x.y=1"], r"'x' is not a section"),
    ],
)
def test_keys_and_types(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _load(tmp_path, MINIMAL, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source.paths=[]"], r"`source\.paths` must name at least one file\. Received: an empty list"),
        (["source.separator=''"], r"`source\.separator` must have at least one character\. Received: ''"),
        (["source.quote='ab'"], r"`source\.quote` must be one character or empty\. Received: 'ab'"),
        (["source.encoding='utf-16'"], r"`source\.encoding` must be a text encoding .* Received: 'utf-16'\. Convert"),
        (["source.encoding='no-such'"], r"`source\.encoding` must be a text encoding .* Received: 'no-such'"),
        (
            ["source.time_format='epoch_second'"],
            r"a strptime pattern with %\. Received: 'epoch_second'\. Did you mean 'epoch_seconds'\?",
        ),
        (["source.time_from='May'"], r"`source\.time_from` must be ISO 8601, such as .* Received: 'May'"),
        (["source.time_until='5/5/17'"], r"`source\.time_until` must be ISO 8601, such as .* Received: '5/5/17'"),
        (["source.max_rejected_share=2"], r"`source\.max_rejected_share` must be from 0\.0 to 1\.0\. Received: 2\.0"),
        (
            ["source.attributes=[{paths=['a'], entity='user', key='id', separator=''}]"],
            r"`source\.attributes\.separator` must have at least one character",
        ),
        (["behaviour.kind='column'"], r"`behaviour\.column` must name a column when .* 'column'\. Received: ''"),
        (
            ["behaviour.kind='classes'", "behaviour.column='b'", "behaviour.classes={a=0, b=2}"],
            r"`behaviour\.classes` must map to 0, 1, \.\. without gaps.* Received: \{'a': 0, 'b': 2\}",
        ),
        (
            [
                "behaviour.kind='classes'",
                "behaviour.column='b'",
                "behaviour.classes={a=0, b=1}",
                "behaviour.positive_classes=[2]",
            ],
            r"`behaviour\.positive_classes` must be some of the classes \[0, 1\], not all\. Received: \(2,\)",
        ),
        (["split.train_from='2015-01-01'"], r'must be shares .* Received: \'2015-01-01\', 0\.8\. Set `by = "times"`'),
        (["split.train_from=0.9"], r"0 < train_from < test_from < 1 must hold\. Received: 0\.9, 0\.8"),
        (["split.validation_share=0"], r"`split\.validation_share` must be from 0\.001 to 0\.9\. Received: 0\.0"),
        (["split.test_rate=-1"], r"`split\.test_rate` must be from 0\.0 to 1\.0\. Received: -1\.0"),
        (["negatives.per_target=0"], r"`negatives\.per_target` must be from 1 to 10000\. Received: 0"),
        (
            ["negatives.per_pool_row=1"],
            r"`negatives\.per_pool_row` belongs to protocol 'rim'\. Received: 1 with 'honest'",
        ),
        (
            ["negatives.drawn_rows='drop'"],
            r"`negatives\.drawn_rows = 'drop'` needs rows that are drawn\. Received: negatives\.per_pool_row = 0",
        ),
        (["retrieval.context_length=128"], r"`retrieval\.context_length` must be from 1 to 127\. Received: 128"),
        (["retrieval.min_future=21"], r"`retrieval\.min_future` must be from 0 to 20\. Received: 21"),
        (["pipeline.num_shards=0"], r"`pipeline\.num_shards` must be from 1 to "),
        (["encoder.num_heads=3"], r"must be a multiple of `encoder\.num_heads`\. Received: 32 and 3"),
        (
            ["pretraining.targets='masked'", "pretraining.mask_ratio=0"],
            r"`pretraining\.mask_ratio` must be above 0 when `targets` is 'masked'\. Received: 0\.0",
        ),
        (["predictor.dropout_rate=1"], r"`predictor\.dropout_rate` must be from 0\.0 to 0\.9\. Received: 1\.0"),
        (
            ["pretraining.next_item=true", "encoder.kind='bidirectional'", "pretraining.targets='masked'", *_LABELLED],
            r"sees the next item\. Received: encoder\.kind = 'bidirectional' with pretraining\.next_item = true",
        ),
        (
            ["predictor.next_item_logit=true"],
            r"comes from pretraining\. Received: predictor\.next_item_logit = true with pretraining\.next_item = false",
        ),
        (
            ["pretraining.next_item_weight=-1"],
            r"`pretraining\.next_item_weight` must be from 0\.0 to 1000\.0\. Received: -1\.0",
        ),
        (["pretraining.query_share=0"], r"`pretraining\.query_share` must be from 0\.01 to 1\.0\. Received: 0\.0"),
        (["pretraining.next_item_samples=-1"], r"`pretraining\.next_item_samples` must be from 0 to "),
        (
            ["training.loss='listwise'", *_LABELLED],
            r"slates of two candidates or more\. Received: training\.loss = 'listwise' with negatives\.protocol = 'none'",
        ),
        (
            ["predictor.recency_days=[1, 7]", "split.mode='static'"],
            r"needs a rolling pool.* Received: predictor\.recency_days = \[1\.0, 7\.0\] with split\.mode = 'static'",
        ),
        (
            ["predictor.recency_days=[7, -1]"],
            r"`predictor\.recency_days` must be from 0\.0001 to 36525\.0\. Received: -1",
        ),
        (["training.batch_size=0"], r"`training\.batch_size` must be from 1 to "),
        (
            ["negatives.protocol='none'"],
            r"A log of positives only needs sampled negatives\. Received: .* 'positive_only' .* 'none'",
        ),
        (
            ["behaviour.kind='column'", "behaviour.column='label'"],
            r"needs no sampled negatives\. Received: .* 'column' .* 'honest'",
        ),
        (
            ["encoder.kind='bidirectional'"],
            r"loss must be read at masked rows\. Received: pretraining\.targets = 'queries'",
        ),
    ],
)
def test_values_that_do_not_fit(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _load(tmp_path, MINIMAL, *overrides)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([Field("user", "user", key=True)], r"Exactly one field of entity 'item' must be its key\. Received: none"),
        (
            [Field("user", "user", key=True), Field("item", "item", key=True), Field("sku", "item", key=True)],
            r"entity 'item' must be its key\. Received: \['item', 'sku'\]",
        ),
        (
            [Field("user", "user", key=True), Field("item", "item", key=True), Field("item", "context")],
            r"Field names must differ\. Received twice: item\.",
        ),
        (
            [Field("user", "user", key=True, query=False), Field("item", "item", key=True, query=False)],
            r"At least one field must take part in retrieval",
        ),
    ],
)
def test_schema(fields: list[Field], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schema(tuple(fields))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "User", "entity": "user"}, r"lower-case letters, digits and underscores\. Received: 'User'"),
        ({"name": "hour", "entity": "context", "key": True}, r"A key field belongs to user or item\. Received: 'hour'"),
        (
            {"name": "a", "entity": "user", "pattern": "("},
            r"`pattern` of field 'a' must be a regular expression\. Received: '\('",
        ),
        (
            {"name": "a", "entity": "user", "pattern": "a.b"},
            r"must have one group, the value\. Received: 'a\.b' with 0",
        ),
    ],
)
def test_field(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Field(**arguments)


def test_overrides(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        MINIMAL,
        "name=other",
        "encoder.dropout_rate=0",
        'source.paths=["a", "b"]',
        "split.by=times",
        "split.train_from=2015-11-20",
        "split.test_from=1512230400",
        "source.time_from=2015-11-20T01:02:03Z",
        "behaviour.classes.a=1",
        "encoder.kind=gru",
    )
    assert config.name == "other"
    assert config.encoder.dropout_rate == 0.0 and isinstance(config.encoder.dropout_rate, float)
    assert config.source.paths == ("a", "b")
    assert (config.split.train_from, config.split.test_from) == ("2015-11-20", 1512230400.0)
    assert config.source.time_from == "2015-11-20T01:02:03+00:00"
    assert config.behaviour.classes == {"a": 1}
    assert config.encoder.kind == "gru"


def test_base_is_extended_table_by_table(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "first.toml").write_text(MINIMAL + '[retrieval]\nnum_neighbours = 3\nidf = "paper"\n')
    (tmp_path / "base" / "second.toml").write_text('base = "first.toml"\nseed = 11\n[retrieval]\nnum_neighbours = 4\n')
    config = _load(tmp_path, 'base = "base/second.toml"\nname = "third"\n[retrieval]\ncontext_length = 5\n')
    assert (config.name, config.seed) == ("third", 11)
    assert (config.retrieval.num_neighbours, config.retrieval.context_length, config.retrieval.idf) == (4, 5, "paper")
    assert config.negatives.protocol == "honest"


def test_base_replaces_lists(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(MINIMAL)
    fields = '[{ name = "u", entity = "user", key = true }, { name = "i", entity = "item", key = true }]'
    assert _load(tmp_path, f'base = "first.toml"\nfields = {fields}\n').schema.names == ("u", "i")


def test_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text(MINIMAL)
    with pytest.raises(
        ValueError, match=r"Received: .*reel\.toml, which is not there\. Found beside it: \['.*real\.toml'\]"
    ):
        load_config(tmp_path / "reel.toml")


def test_file_that_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be TOML\. Received: .*toy\.toml: "):
        _load(tmp_path, "name = \n")


def test_encoded_fields_may_leave_the_users_out(tmp_path: Path) -> None:
    entities = [field.entity for field in _load(tmp_path).schema.fields]
    assert _load(tmp_path).encoded_indices is None
    others = _load(tmp_path, MINIMAL, "encoder.user_fields=false").encoded_indices
    assert 0 < len(others) < len(entities) and all(entities[index] != "user" for index in others)


def test_section_hash_changes_with_its_sections_alone(tmp_path: Path) -> None:
    first, second = _load(tmp_path), _load(tmp_path, MINIMAL, "encoder.num_layers=3")
    assert first.section_hash("source", "fields") == second.section_hash("source", "fields")
    assert first.section_hash("source", "encoder") != second.section_hash("source", "encoder")


@given(st.floats(0.01, 0.9), st.floats(0.01, 0.99))
def test_shares_must_ascend(tmp_path_factory: pytest.TempPathFactory, train_from: float, test_from: float) -> None:
    overrides = [f"split.train_from={train_from!r}", f"split.test_from={test_from!r}"]
    folder = tmp_path_factory.mktemp("split")
    if train_from < test_from:
        assert _load(folder, MINIMAL, *overrides).split.test_from == test_from
    else:
        with pytest.raises(ValueError, match="train_from < test_from"):
            _load(folder, MINIMAL, *overrides)


def test_overrides_of_the_command_line() -> None:
    assert parse_assignments(["a=1", "b=[2, 3]", "c=words"]) == {"a": 1, "b": [2, 3], "c": "words"}
    with pytest.raises(ValueError, match="must read key=value. Received: 'a'"):
        parse_assignments(["a"])
    with pytest.raises(ValueError, match="must be given once. Received: 'a' twice"):
        parse_assignments(["a=1", "a=2"])
