"""Which version folder of a model to serve. Imports no TensorFlow, so that a wrong path is reported at once."""

from __future__ import annotations

from pathlib import Path

SAVED_MODEL_FILE = "saved_model.pb"


def find_latest_version(model_base_path: str | Path) -> tuple[int, Path]:
    """Finds the version that TensorFlow Serving would serve by default: the folder with the highest number.

    Args:
        model_base_path: Folder of one model, with a numeric folder for each version.

    Returns:
        The version and its folder, which holds a `saved_model.pb`.

    Raises:
        ValueError: The base path is no folder, has no numeric folder, or the highest one holds no SavedModel.
    """
    base_path = Path(model_base_path)
    if not base_path.is_dir():
        raise ValueError(
            "The model base path must be an existing folder with one numeric folder a version. "
            f"Received: {base_path}, which is not a folder. Export a model there first, or correct --model_base_path."
        )
    version_to_path = {
        int(path.name): path
        for path in base_path.iterdir()
        if path.is_dir() and path.name.isascii() and path.name.isdigit()
    }
    if not version_to_path:
        names = sorted(path.name for path in base_path.iterdir())
        raise ValueError(
            "The model base path must hold one numeric folder a version, such as 1/saved_model.pb. "
            f"Received: {base_path} with {names[:10] or 'nothing in it'}. Export a model there first, or pass the "
            "folder above the version folder."
        )
    version = max(version_to_path)
    path = version_to_path[version]
    if not (path / SAVED_MODEL_FILE).is_file():
        raise ValueError(
            f"A version folder must hold {SAVED_MODEL_FILE}. Received: {path} without one. "
            "Delete that folder, or export the model again."
        )
    return version, path
