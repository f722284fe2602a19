"""Which version folders of a model to serve. Imports no TensorFlow, so that a wrong path is reported at once."""

from __future__ import annotations

from pathlib import Path

from tensorflow_serving.config import model_server_config_pb2


def find_versions(model_base_path: str | Path) -> dict[int, Path]:
    """Finds the numeric folders under the base path of one model: version -> folder.

    Raises:
        ValueError: The base path is no folder, or has no numeric folder.
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
    return version_to_path


def choose_versions(config: model_server_config_pb2.ModelConfig) -> dict[int, Path]:
    """Chooses by the model's version policy: the newest one by default, the newest n, all, or the named ones.

    Returns:
        Version -> folder, in ascending order of the versions, at least one.

    Raises:
        ValueError: The base path holds no version, or a version that the policy names is not there.
    """
    found = find_versions(config.base_path)
    policy = config.model_version_policy
    if policy.HasField("specific"):
        chosen = sorted(set(policy.specific.versions))
        missing = [version for version in chosen if version not in found]
        if missing or not chosen:
            raise ValueError(
                f"The versions that the policy of model `{config.name}` names must be in {config.base_path}, at least "
                f"one. Received: {chosen}, of which {missing} are not there. Export them, or correct the policy."
            )
    elif policy.HasField("all"):
        chosen = sorted(found)
    else:
        chosen = sorted(found)[-max(1, policy.latest.num_versions) :]
    return {version: found[version] for version in chosen}
