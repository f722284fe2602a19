"""Where compiled code is kept: never where code of other sources lies."""

from pathlib import Path

import numba
import pytest

from tf_lift.retrieval import compiled, nearest


def test_code_lies_in_a_folder_of_its_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for source in Path(compiled.__file__).parent.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    path = Path(nearest.find_nearest.stats.cache_path)
    assert any(part.startswith("lookup-") for part in path.parts)
    before = numba.config.CACHE_DIR
    monkeypatch.setattr(compiled, "_FOLDER", tmp_path)
    same = Path(compiled.compile_function(_add).stats.cache_path)
    assert {part for part in same.parts if part.startswith("lookup-")} <= set(path.parts)
    constants = tmp_path / "lookup_tables.py"
    constants.write_text(constants.read_text(encoding="utf-8").replace("BLOCK = ", "BLOCK = 1 + "), encoding="utf-8")
    other = compiled.compile_function(_add)
    assert Path(other.stats.cache_path) != same and other(1, 2) == 3
    assert numba.config.CACHE_DIR == before


def test_without_a_folder_code_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cache: bool = False, **_: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled, "njit", refuse)
    assert compiled.compile_inline(_add)(1, 2) == 3


def _add(one: int, other: int) -> int:
    return one + other
