"""Imports point one way: nouns <- retrieval, data <- layers <- models <- stages, with beam, export and serving on top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tf_lift", "beam", "export", "serving")
TOP = ("beam", "export", "serving")

NOUNS = ("_version", "config", "schema", "vocabulary", "workspace", "interactions", "segments")
# Each layer may import itself and what stands before it.
LAYERS = {
    "nouns": (*NOUNS, "synthetic", "strategy", "metrics", "slate_grid"),
    "retrieval": ("retrieval", "situation"),
    "data": ("data", "datastore"),
    "layers": ("layers",),
    "models": ("models", "training_loop"),
    "reports": (
        "report_plots",
        "report",
        "report_content",
        "evaluation_slices",
        "evaluation_tables",
        "worked_predictions",
    ),
    "stages": (
        "pretrain",
        "encode",
        "frozen_features",
        "fit",
        "evaluate",
        "train",
        "baselines",
    ),  # baselines train and read the stages
    "searches": ("tuning", "tune"),
}
WITHOUT_TENSORFLOW = (*NOUNS, "retrieval", "situation", "synthetic", "metrics", "slate_grid")
# Lookups as TensorFlow operations, for training and serving.
IN_TENSORFLOW = ("tf_lift/retrieval/graph", "tf_lift/situation/graph", "tf_lift/situation/overlap")
# The warm-up file of a SavedModel is made of TensorFlow Serving's messages.
WARMUP_PROTOS = {f"tensorflow_serving.apis.{name}_pb2" for name in ("model", "prediction_log")}
TENSORFLOW = ("tensorflow", "tensorflow_recommenders", "tf_keras", "keras")


def read_imports(source: str, package: str) -> set[str]:
    """Absolute dotted names that a file imports, wherever it does.

    Args:
        source: the file's text.
        package: dotted name of the package that holds it.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def list_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    return read_imports(path.read_text(encoding="utf-8"), ".".join(path.relative_to(ROOT).parent.parts))


def is_under(name: str, packages: tuple[str, ...]) -> bool:
    return name.split(".")[0] in packages


def part_of(path: Path) -> str:
    """The file or folder directly under tf_lift that a path lies in, without its ending."""
    return path.relative_to(ROOT / "tf_lift").parts[0].removesuffix(".py")


FILES = list_files()
OWN_FILES = [
    path
    for path in FILES
    if path.relative_to(ROOT).parts[0] == "tf_lift" and path.parent.name + path.name != "tf_lift__init__.py"
]
PLACE = {part: place for place, parts in enumerate(LAYERS.values()) for part in parts}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_reads_every_form_of_import():
    source = (
        "import a.b as c\nfrom d import e, f\nfrom . import g\nfrom ..h.i import j\ndef k():\n    from l import m\n"
    )
    assert read_imports(source, "p.q") == {"a.b", "d.e", "d.f", "p.q.g", "p.h.i.j", "l.m"}


def test_every_file_of_tf_lift_has_a_layer():
    assert {part_of(path) for path in OWN_FILES} == set(PLACE)


@pytest.mark.parametrize("path", OWN_FILES, ids=name_of)
def test_imports_of_tf_lift_point_one_way(path):
    own = PLACE[part_of(path)]
    imported = {name.split(".")[1] for name in imports_of(path) if name.startswith("tf_lift.")}
    upwards = {part for part in imported if part in PLACE and PLACE[part] > own}
    assert not upwards, f"{name_of(path)} is of a layer below {sorted(upwards)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_packages_keep_to_themselves(path):
    own = path.relative_to(ROOT).parts[0]
    imported = imports_of(path)
    others = tuple(package for package in TOP if package != own)
    assert not {name for name in imported if is_under(name, others)}
    if own != "beam":
        assert not {name for name in imported if is_under(name, ("apache_beam",))}
    if own != "serving":
        assert not {name for name in imported if is_under(name, ("grpc", "tensorflow_serving"))} - WARMUP_PROTOS
    assert "beam" not in imported  # it reads as apache_beam


@pytest.mark.parametrize("path", [path for path in OWN_FILES if part_of(path) in WITHOUT_TENSORFLOW], ids=name_of)
def test_nouns_need_no_tensorflow(path):
    if not name_of(path).startswith(IN_TENSORFLOW):
        assert not {name for name in imports_of(path) if is_under(name, TENSORFLOW)}
