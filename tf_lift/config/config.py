"""Reads a TOML file into frozen dataclasses, and refuses what it does not know."""

import dataclasses
import datetime
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_lift.config import model_sections, sections
from tf_lift.config.export_section import Export
from tf_lift.config.hashing import hash_json
from tf_lift.config.situation_section import Situation, SituationFeatures, Transitions
from tf_lift.schema import Field, Schema


@dataclasses.dataclass(frozen=True)
class Config:
    """One data set or experiment."""

    name: str
    """Name of the folder of the artefacts, and of the served model."""
    source: sections.Source
    """The interaction log's files."""
    fields: tuple[Field, ...]
    """The fields of an interaction."""
    split: sections.Split = sections.Split()
    """The global-time split."""
    behaviour: sections.Behaviour = sections.Behaviour()
    """What the user did with the item."""
    negatives: sections.Negatives = sections.Negatives()
    """Sampled negatives."""
    retrieval: sections.Retrieval = sections.Retrieval()
    """Neighbour search."""
    pipeline: sections.Pipeline = sections.Pipeline()
    """How preprocessing cuts its work."""
    situation: Situation = Situation()
    """What people in the same situation did next."""
    encoder: model_sections.Encoder = model_sections.Encoder()
    """The encoder."""
    pretraining: model_sections.Pretraining = model_sections.Pretraining()
    """Pretraining of the encoder."""
    predictor: model_sections.Predictor = model_sections.Predictor()
    """The predictor."""
    training: model_sections.Training = model_sections.Training()
    """Training of the predictor."""
    export: Export = Export()
    """The served model."""
    seed: int = 7
    """Seed of training's random choices."""
    data_seed: int = 7
    """Seed of preprocessing alone (negatives, sampled targets), so that training seeds share one data set."""
    workspace: str = "workspace"
    """Folder of all artefacts; `<workspace>/<name>/` holds this configuration's."""
    run: str = "run"
    """Folder in it of what training writes, so that several runs can share one data set."""

    def __post_init__(self) -> None:
        Schema(self.fields)
        if self.behaviour.kind == "positive_only" and self.negatives.protocol == "none":
            raise ValueError(
                "A log of positives only needs sampled negatives. Received: behaviour.kind = 'positive_only' with "
                "negatives.protocol = 'none'. Set negatives.protocol to 'honest' or 'rim', or name a behaviour column."
            )
        if self.behaviour.kind != "positive_only" and self.negatives.protocol != "none":
            raise ValueError(
                "A log with its own labels needs no sampled negatives. Received: behaviour.kind = "
                f"{self.behaviour.kind!r} with negatives.protocol = {self.negatives.protocol!r}. Set one of the two."
            )
        is_masked, is_taught = self.pretraining.targets == "masked", self.pretraining.enabled
        if is_taught and not self.has_classes:
            if is_masked or not self.pretraining.negatives_per_row:
                raise ValueError(
                    "Pretraining on positives only needs something to tell them from. Received: pretraining.targets = "
                    f"{self.pretraining.targets!r}, pretraining.negatives_per_row = {self.pretraining.negatives_per_row} and no "
                    "negatives in the pool. Set targets = 'queries' and negatives_per_row = 1, or pretraining.enabled = false."
                )
        if "/" in self.name or self.name.startswith(".") or not self.name:
            raise ValueError(f"`name` must be a folder's name. Received: {self.name!r}.")
        if self.pretraining.targets == "queries" and self.encoder.kind == "bidirectional" and self.pretraining.enabled:
            raise ValueError(
                "A bidirectional encoder sees every label of the window, so its loss must be read at masked rows. Received: "
                "pretraining.targets = 'queries'. Set it to 'masked'."
            )
        self._check_next_item()
        if self.predictor.recency_days and self.split.mode == "static":
            raise ValueError(
                "Recency needs a rolling pool: a static one ends before train, and the spans of a test target would be empty. Received: "
                f"predictor.recency_days = {list(self.predictor.recency_days)} with split.mode = 'static'. Empty the one, or set "
                "split.mode = 'rolling'."
            )
        if self.training.loss == "listwise" and self.negatives.protocol == "none":
            raise ValueError(
                "A listwise loss needs slates of two candidates or more. Received: training.loss = 'listwise' with negatives.protocol = "
                "'none', whose slates have one. Set training.loss = 'pointwise'."
            )

    def _check_next_item(self) -> None:
        if self.pretraining.next_item and self.encoder.kind == "bidirectional":
            raise ValueError(
                "A bidirectional encoder sees the next item. Received: encoder.kind = 'bidirectional' with pretraining.next_item = true. "
                "Set encoder.kind to 'causal' or 'gru', or pretraining.next_item = false."
            )
        if self.predictor.next_item_logit and not self.pretraining.next_item:
            raise ValueError(
                "The next item's logit comes from pretraining. Received: predictor.next_item_logit = true with pretraining.next_item = "
                "false. Set pretraining.next_item = true, or predictor.next_item_logit = false."
            )

    @property
    def schema(self) -> Schema:
        """The fields as one object."""
        return Schema(self.fields)

    @property
    def has_classes(self) -> bool:
        """Whether the pool's rows are of more than one class, which eq. 10 tells at masked rows."""
        return self.behaviour.kind != "positive_only" or self.negatives.logged_per_pool_row > 0

    def value(self, name: str) -> Any:
        """The value of a "section.key".

        Raises:
            AttributeError: there is none.
        """
        section, _, key = name.partition(".")
        return getattr(getattr(self, section), key)

    @property
    def encoded_indices(self) -> tuple[int, ...] | None:
        """Indices of the fields that the encoder reads; None: all."""
        if self.encoder.user_fields:
            return None
        return tuple(index for index, field in enumerate(self.schema.fields) if field.entity != "user")

    @property
    def pretrained_indices(self) -> tuple[int, ...] | None:
        """Indices of the fields whose embeddings in the encoder are read, and trained where pretraining is enabled; None: all."""
        section = self.pretraining
        reads_user = section.enabled and section.next_item and section.next_item_user and section.share_encoder
        return None if reads_user else self.encoded_indices

    @property
    def transitions(self) -> Transitions | None:
        """The part of `situation` that the data set depends on."""
        return self.situation.transitions

    @property
    def situation_features(self) -> SituationFeatures | None:
        """The part of `situation` that the predictor depends on."""
        return self.situation.features

    @property
    def context_length(self) -> int:
        """L: the part of `retrieval` that the encoder depends on."""
        return self.retrieval.context_length

    @property
    def situation_rows(self) -> int:
        """m, the rows of a history that are looked up in the transition tables."""
        return min(self.situation.history_rows, self.retrieval.context_length)

    def section_hash(self, *names: str) -> str:
        """Hash of some sections: what an artefact depends on and nothing else.

        Args:
            *names: attribute names of this class; one that is None, as it is switched off, leaves the hash as it is.

        Returns:
            16 hexadecimal digits.
        """
        content = {name: _plain(getattr(self, name)) for name in names if getattr(self, name) is not None}
        return hash_json(content)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads and checks a configuration.

    Args:
        path: a TOML file. Its key `base` may name another file, relative to it, whose tables it extends.
        overrides: `section.key=value` strings; the value is TOML, or a string where it is not.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or values that do not fit together.
    """
    table = _read_toml(Path(path))
    for override in overrides:
        _apply_override(table, override)
    config = _build(Config, table, "")
    return typing.cast(Config, config)


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = sorted(str(file) for file in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise ValueError(
            f"The configuration must be a TOML file. Received: {path}, which is not there. Found beside it: {known}."
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"The configuration must be TOML. Received: {path}: {error}.") from error
    if "base" in table:
        return _merge(_read_toml(path.parent / table.pop("base")), table)
    return table


def _merge(base: dict[str, Any], extension: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in extension.items():
        base[key] = (
            _merge(base[key], value) if isinstance(value, Mapping) and isinstance(base.get(key), dict) else value
        )
    return base


def parse_assignment(text: str) -> tuple[str, Any]:
    """Key and value of `key=value`, "" for the key where there is none; a value is TOML, or a string where it is not or is a date."""
    key, separator, written = text.partition("=")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written
    return key.strip() if separator else "", _write_dates(value)


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Settings of `key=value` texts; a value is TOML, or a string where it is not.

    Raises:
        ValueError: a text without "=", or a key that is there twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, value = parse_assignment(text)
        if not key:
            raise ValueError(f"A setting must read key=value. Received: {text!r}. Write it without spaces.")
        if key in settings:
            raise ValueError(f"A setting must be given once. Received: {key!r} twice in {list(texts)}. Keep one.")
        settings[key] = value
    return settings


def _write_dates(value: Any) -> Any:
    """A TOML value with its dates and times, in lists too, as ISO text: JSON has none."""
    if isinstance(value, list):
        return [_write_dates(part) for part in value]
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def _apply_override(table: dict[str, Any], override: str) -> None:
    key, value = parse_assignment(override)
    if not key:
        raise ValueError(f"An override must read section.key=value. Received: {override!r}.")
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ValueError(
                f"An override must name a key of a section. Received: {override!r}; {parent!r} is not a section."
            )
    table[last] = value


def _build(cls: type, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise ValueError(f"`{where}` must be a table. Received: {table!r}.")
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
            raise ValueError(f"Unknown key {key!r} in {f'[{where}]' if where else 'the configuration'}. {advice}")
    missing = [
        name
        for name, field in known.items()
        if name not in table and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(
            f"{f'[{where}]' if where else 'The configuration'} must set {', '.join(missing)}. Received: {sorted(table)}."
        )
    prefix = f"{where}." if where else ""
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in table.items()})


def convert_value(section: type, key: str, value: Any) -> Any:
    """A value as the configuration holds it, such as a tuple for a list.

    Args:
        section: the class of a section.
        key: one of its fields.
        value: as JSON or TOML give it.

    Raises:
        ValueError: the field cannot hold it.
    """
    return _convert(typing.get_type_hints(section)[key], value, key)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, datetime.date):  # a time without quotes; a datetime is a date too
        value = value.isoformat()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), [str(argument) for argument in arguments], n=1)
            raise ValueError(
                f"`{where}` must be one of {', '.join(map(repr, arguments))}. Received: {value!r}."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
        return value
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            if _is_scalar(argument, value):
                return argument(value)
        raise ValueError(
            f"`{where}` must be {' or '.join(argument.__name__ for argument in arguments)}. Received: {value!r}."
        )
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"`{where}` must be a list. Received: {value!r}.")
        return tuple(_convert(arguments[0], element, f"{where}[{index}]") for index, element in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"`{where}` must be a table. Received: {value!r}.")
        return {str(key): _convert(arguments[1], element, f"{where}.{key}") for key, element in value.items()}
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if not _is_scalar(hint, value):
        raise ValueError(f"`{where}` must be {hint.__name__}. Received: {value!r}, a {type(value).__name__}.")
    return hint(value)


def _is_scalar(hint: Any, value: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _plain(value: Any) -> Any:
    """Dataclasses and tuples of them as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple | list):
        return [_plain(element) for element in value]
    return value
