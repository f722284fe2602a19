"""The settings that a search may choose, and how KerasTuner's values are read as them."""

import contextlib
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
        otherwise: setting of `needs` -> the value that it has then instead, where the default would not fit.
    """

    choices: Mapping[str, tuple[Any, ...]]
    defaults: Mapping[str, Any]
    needs: Mapping[str, tuple[str, Any]] = dataclasses.field(default_factory=dict)
    otherwise: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
            if len(values) < 2 or not self._fits(name):
                continue
            with contextlib.ExitStack() as scopes:
                for parent, needed in self._conditions(name):
                    scopes.enter_context(space.conditional_scope(parent, [_encode(needed)]))
                if isinstance(default, bool):
                    space.Boolean(name, default=default)
                else:
                    space.Choice(name, values, default=default)
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
        for name, value in self.otherwise.items():
            if name in self.choices and name not in values and _encode(value) != _encode(self.defaults[name]):
                chosen[name] = value
        return chosen

    def _conditions(self, name: str) -> list[tuple[str, Any]]:
        """What a setting needs, and what that needs in turn, the outermost first; without what is not searched."""
        if name not in self.needs:
            return []
        parent, needed = self.needs[name]
        return self._conditions(parent) + ([(parent, needed)] if self._is_searched(parent) else [])

    def _is_searched(self, name: str) -> bool:
        return name in self.choices and len(self._all_values(name, self.choices[name])) > 1

    def _fits(self, name: str) -> bool:
        """Whether what a setting needs and is not searched has the value that it needs."""
        if name not in self.needs:
            return True
        parent, needed = self.needs[name]
        is_met = self._is_searched(parent) or parent not in self.defaults or self.defaults[parent] == needed
        return is_met and self._fits(parent)

    def _all_values(self, name: str, choices: tuple[Any, ...]) -> list[Any]:
        values = [_encode(value) for value in choices]
        default = _encode(self.defaults[name])
        return values if default in values else [*values, default]


def _encode(value: Any) -> bool | int | float | str:
    """A value as KerasTuner takes it: words and lists as JSON."""
    return value if isinstance(value, bool | int | float) else json.dumps(value)
