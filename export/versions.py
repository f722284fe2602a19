"""The numeric version folders of a model, and which run each was exported from."""

import json
from pathlib import Path

from tf_lift.workspace import write_json

_STAMP = Path("assets.extra") / "tf_lift.json"


def list_versions(models_dir: Path) -> list[int]:
    """Numbers of the exported versions, ascending."""
    if not models_dir.is_dir():
        return []
    return sorted(int(path.name) for path in models_dir.iterdir() if path.is_dir() and path.name.isdigit())


def write_fingerprint(folder: Path, fingerprint: str) -> None:
    """Notes in a version's folder which run it was exported from."""
    (folder / _STAMP).parent.mkdir(exist_ok=True)
    write_json(folder / _STAMP, {"fingerprint": fingerprint})


def read_fingerprint(folder: Path) -> str | None:
    """The run that a version was exported from; None where nothing says so."""
    path = folder / _STAMP
    return json.loads(path.read_text(encoding="utf-8"))["fingerprint"] if path.is_file() else None
