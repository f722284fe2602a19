"""The rules of the house style that a short test can check."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
PRINTING = {"serving/client_command.py", "serving/local.py"}  # command lines
VAGUE_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}
AMERICAN = re.compile("neighb" + "or|behavi" + "or", re.IGNORECASE)
MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("work", "tmp/w", "root"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def list_files() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in (ROOT / name for name in sorted(set(found.split("\0"))) if name) if path.is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


FILES = list_files()
ALL_CODE = [path for path in FILES if path.suffix == ".py"]
CODE = [path for path in ALL_CODE if not name_of(path).startswith("tests/")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in ALL_CODE}


def find_asserts(tree: ast.AST) -> list[int]:
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def find_prints(tree: ast.AST) -> list[int]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def find_broad_handlers(tree: ast.AST) -> list[int]:
    broad = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = [getattr(kind, "id", None) for kind in caught]
            if node.type is None or {"Exception", "BaseException"} & set(names):
                broad.append(node.lineno)
    return broad


def find_long_functions(tree: ast.AST) -> list[tuple[str, int]]:
    functions = (node for node in ast.walk(tree) if isinstance(node, Function))
    lengths = ((function.name, (function.end_lineno or 0) - function.lineno + 1) for function in functions)
    return [(name, length) for name, length in lengths if length > MAX_FUNCTION_LINES]


def own_names(tree: ast.AST) -> Iterator[str]:
    """Names that a file gives: of functions, classes, arguments and variables."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def test_checks_see_what_they_look_for():
    tree = ast.parse("assert 1\nprint(2)\ntry:\n    pass\nexcept (OSError, Exception):\n    pass\n")
    assert (find_asserts(tree), find_prints(tree), find_broad_handlers(tree)) == ([1], [2], [5])
    assert find_broad_handlers(ast.parse("try:\n    pass\nexcept:\n    pass\n")) == [3]
    assert find_long_functions(ast.parse("def f():\n" + "    pass\n" * 60)) == [("f", 61)]
    assert "neighb" + "ors" in set(own_names(ast.parse("def f(a, neighb" + "ors): b = a")))


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_code(path):
    tree = TREES[path]
    assert not find_asserts(tree), "`assert` outside tests"
    assert name_of(path) in PRINTING or not find_prints(tree), "`print` outside a command line"
    assert not find_broad_handlers(tree), "an `except` that catches everything"
    assert not find_long_functions(tree)


@pytest.mark.parametrize("path", ALL_CODE, ids=name_of)
def test_every_python_file(path):
    if name_of(path).startswith("tests/"):
        assert path.name != "__init__.py"
    else:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert path.name not in VAGUE_NAMES
    assert not [name for name in own_names(TREES[path]) if AMERICAN.search(name)]


def test_no_file_names_a_path_of_one_machine():
    tracked = {path: path.read_bytes() for path in FILES}
    found = [(name_of(path), text) for path, data in tracked.items() for text in MACHINE_PATHS if text.encode() in data]
    assert not found
