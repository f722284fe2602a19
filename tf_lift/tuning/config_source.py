"""A configuration as the command line names it, from which further ones are made by other values."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_lift.config import Config, load_config
from tf_lift.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class ConfigSource:
    """A TOML file and overrides.

    Attributes:
        path: the file.
        overrides: `section.key=value` texts.
    """

    path: Path
    overrides: tuple[str, ...] = ()

    def load(self) -> Config:
        """The configuration.

        Raises:
            ValueError: it is wrong.
        """
        return load_config(self.path, self.overrides)

    def with_settings(self, settings: Mapping[str, Any]) -> "ConfigSource":
        """The same with other values for some keys.

        Where they ask for another data set, it gets a folder of its own, so that the configuration's own data set stays as it is.

        Args:
            settings: "section.key" -> value.

        Raises:
            ValueError: values that do not fit together.
        """
        changed = ConfigSource(
            self.path, (*self.overrides, *(f"{key}={_toml(value)}" for key, value in settings.items()))
        )
        own, workspace = Workspace(self.load()), Workspace(changed.load())
        fingerprint = workspace.fingerprint("dataset")
        if fingerprint == own.fingerprint("dataset"):
            return changed
        place = {
            "workspace": str(own.root.absolute() / "tuning" / "data_sets"),
            "name": f"{own.config.name}_{fingerprint[:8]}",
        }
        return ConfigSource(self.path, (*changed.overrides, *(f"{key}={_toml(value)}" for key, value in place.items())))

    def write_toml(self, path: Path, heading: str) -> None:
        """Writes the configuration as a file that extends this one's.

        Args:
            path: the file to write.
            heading: comment lines without their `#`.

        Raises:
            ValueError: a file of base and overrides would not say the same, as an override replaces a whole table.
        """
        lines = [
            *(f"# {line}".rstrip() for line in heading.splitlines()),
            "",
            f"base = {_toml(str(self.path.absolute()))}",
        ]
        values = dict(text.split("=", 1) for text in self.overrides)  # the last of a key counts
        lines += [f"{key.strip()} = {_as_toml(value)}" for key, value in values.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if load_config(path) != self.load():
            path.unlink()
            raise ValueError(
                "Overrides must set single values to be written as a file. Received: "
                f"{', '.join(self.overrides)}. Write what replaces a whole table into a configuration of your own, and tune that."
            )


def _toml(value: Any) -> str:
    """A number, word, truth value or list of them; TOML writes these as JSON does."""
    return json.dumps(value)


def _as_toml(text: str) -> str:
    """An override's value, which is TOML or a string."""
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return _toml(text)
    return text.strip()
