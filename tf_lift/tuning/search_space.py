"""The settings that a search may choose, and how KerasTuner's values are read as them."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import keras_tuner

_ABOUT_SEARCH = "tuner/"  # KerasTuner's own values, such as Hyperband's epochs


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Settings and the values that may be chosen for each.

    Attributes:
        choices: setting -> its values; one with a single value is not searched.
        defaults: setting -> the value that it has without a choice.
        needs: setting -> (another setting, the value that it must have for this one to say anything). Where it has another, this
            one keeps its default.
    """

    choices: Mapping[str, tuple[Any, ...]]
    defaults: Mapping[str, Any]
    needs: Mapping[str, tuple[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (parent, _) in self.needs.items():
            if (
                name in self.choices
                and parent in self.choices
                and list(self.choices).index(parent) > list(self.choices).index(name)
            ):
                raise ValueError(
                    f"A setting must come after the one that it needs. Received: {name!r} before {parent!r}."
                )
        for name in self.choices:
            if name not in self.defaults:
                raise ValueError(f"Every setting of a search must have a default. Received: none for {name!r}.")

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """The space as KerasTuner takes it, in the order of `choices`."""
        space = keras_tuner.HyperParameters()
        for name, choices in self.choices.items():
            values, default = self._all_values(name, choices), _encode(self.defaults[name])
            if len(values) < 2:
                continue
            parent, needed = self.needs.get(name, (None, None))
            if parent not in self.choices:
                parent = None
            condition = {"parent_name": parent, "parent_values": [_encode(needed)]} if parent else {}
            if isinstance(default, bool):
                space.Boolean(name, default=default, **condition)
            else:
                space.Choice(name, values, default=default, **condition)
        return space

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial that are not their defaults.

        Args:
            values: KerasTuner's, by name.
        """
        chosen = {}
        for name, value in values.items():
            if name.startswith(_ABOUT_SEARCH):
                continue
            decoded = json.loads(value) if isinstance(value, str) else value
            if _encode(decoded) != _encode(self.defaults[name]):
                chosen[name] = decoded
        return chosen

    def _all_values(self, name: str, choices: tuple[Any, ...]) -> list[Any]:
        values = [_encode(value) for value in choices]
        default = _encode(self.defaults[name])
        return values if default in values else [*values, default]


def _encode(value: Any) -> bool | int | float | str:
    """A value as KerasTuner takes it: words and lists as JSON."""
    return value if isinstance(value, bool | int | float) else json.dumps(value)
