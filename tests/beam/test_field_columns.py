"""Which column of which file a field is read from."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam.field_columns import FieldColumns, find_field_columns
from tf_lift.config import AttributeTable, Behaviour, Config, Negatives, Source
from tf_lift.schema import Field


class TestFindFieldColumns:
    def _config(
        self, tmp_path: Path, log: bytes = b"uid,iid,ts,price\n", users: bytes = b"id,age,price\n", **kwargs
    ) -> Config:
        (tmp_path / "log.csv").write_bytes(log)
        (tmp_path / "users.csv").write_bytes(users)
        fields = (
            Field("user", "user", column="uid", key=True),
            Field("item", "item", column="iid", key=True),
            Field("age", "user"),
            Field("price", "item"),
        )
        table = AttributeTable(paths=(str(tmp_path / "users.csv"),), entity="user", key=kwargs.pop("key", "id"))
        source = {"paths": (str(tmp_path / "log.csv"),), "time": "ts", "attributes": (table,)} | kwargs.pop(
            "source", {}
        )
        kwargs = {"negatives": Negatives(protocol="honest"), "fields": fields} | kwargs
        return Config("test", Source(**source), **kwargs)

    def test_log_before_tables(self, tmp_path: Path) -> None:
        columns = find_field_columns(self._config(tmp_path, users=b"id,age,uid,price\n"))
        assert columns == FieldColumns({"user": "uid", "item": "iid", "price": "price"}, ({"age": "age"},))

    def test_parquet_log(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"uid": [1], "iid": [1], "ts": [1], "price": [1]}), tmp_path / "log.parquet")
        config = self._config(tmp_path, source={"paths": (str(tmp_path / "log.parquet"),), "format": "parquet"})
        assert find_field_columns(config).log == {"user": "uid", "item": "iid", "price": "price"}

    @pytest.mark.parametrize(
        ("log", "users", "message"),
        [
            (
                b"uid,iid,ts,prices\n",
                b"id,age,price\n",
                r"missing column 'price', field 'price' of entity 'item'\. Did you mean 'prices'\? "
                r"Received columns of the log: uid, iid, ts, prices; of users\.csv: id, age, price\.",
            ),
            (
                b"uid,iid,time,price\n",
                b"id,age\n",
                r"missing column 'ts', source\.time\. Received columns of the log: uid",
            ),
            (
                b"uid,iid,ts,price\n",
                b"ids,age\n",
                r"missing column 'id', source\.attributes\.key\. Did you mean 'ids'\?",
            ),
            (b"iid,ts,price\n", b"id,age,uid\n", r"missing column 'uid', field 'user' .* Did you mean 'iid'\?"),
        ],
    )
    def test_missing_columns(self, log: bytes, users: bytes, message: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=message):
            find_field_columns(self._config(tmp_path, log, users))

    def test_missing_behaviour_column(self, tmp_path: Path) -> None:
        config = self._config(tmp_path, behaviour=Behaviour("column", "pric"), negatives=Negatives())
        with pytest.raises(ValueError, match=r"missing column 'pric', behaviour\.column\. Did you mean 'price'\?"):
            find_field_columns(config)

    def test_separator_that_does_not_fit(self, tmp_path: Path) -> None:
        source = {"paths": (str(tmp_path / "log.csv"),), "columns": ("uid", "iid", "price", "ts"), "time": "ts"}
        config = self._config(tmp_path, log=b"1::2::3::4\n", source=source)
        with pytest.raises(
            ValueError, match=r"separator ',' for .*log\.csv, whose first line starts with '1::2::3::4'\."
        ):
            find_field_columns(config)
