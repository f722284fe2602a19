"""The fields of an interaction, and which entity determines each."""

import dataclasses
import re
from typing import Literal

PADDING_ID = 0  # no value: a missing attribute, or a place that nothing fills
UNKNOWN_ID = 1  # a value that the vocabulary lacks as of the target's time
FIRST_VALUE_ID = 2

Entity = Literal["user", "item", "context"]

# Inputs of the served model, beside which requests name context fields and the user's attributes (DESIGN.md section 6).
REQUEST_INPUTS = ("user", "item", "candidates", "time", "examples", "inputs")
HISTORY_PREFIX = "history_"


@dataclasses.dataclass(frozen=True)
class Field:
    """One categorical column of an interaction."""

    name: str
    """Name within this project."""
    entity: Entity
    """What determines the value: the user, the item, or (context) each interaction for itself."""
    column: str = ""
    """Column of the log or of an attribute table; empty: the field's name."""
    key: bool = False
    """True for the two fields that identify the user and the item."""
    query: bool = True
    """True: the field takes part in retrieval (eq. 12)."""
    pattern: str = ""
    """Regular expression whose first group is the value, such as "^([^|]*)" for the first genre. Empty: the cell as it is."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                f"A field's name must be lower-case letters, digits and underscores. Received: {self.name!r}. Rename it; "
                "`column` may name the log's own column."
            )
        if self.key and self.entity == "context":
            raise ValueError(f"A key field belongs to user or item. Received: {self.name!r} of entity 'context'.")
        try:
            num_groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(
                f"`pattern` of field {self.name!r} must be a regular expression. Received: {self.pattern!r}: {error}."
            ) from error
        if self.pattern and num_groups != 1:
            raise ValueError(
                f"`pattern` of field {self.name!r} must have one group, the value. Received: {self.pattern!r} with {num_groups}."
            )

    @property
    def source_column(self) -> str:
        """The column that holds the value."""
        return self.column or self.name


@dataclasses.dataclass(frozen=True)
class Schema:
    """The M fields of an interaction, in the order of every [.., M] array."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Field names must differ. Received twice: {', '.join(repeated)}.")
        for field in self.fields:
            in_requests = field.entity != "item" and not field.key
            if in_requests and (field.name in REQUEST_INPUTS or field.name.startswith(HISTORY_PREFIX)):
                raise ValueError(
                    f"Fields that requests bring must not be named {', '.join(REQUEST_INPUTS)} or {HISTORY_PREFIX}..: the served model has "
                    f"inputs of these names. Received: {field.name!r}. Rename it; `column` may name the log's own column."
                )
        for entity in ("user", "item"):
            keys = [field.name for field in self.fields if field.entity == entity and field.key]
            if len(keys) != 1:
                raise ValueError(
                    f"Exactly one field of entity {entity!r} must be its key. Received: {keys or 'none'}. "
                    "Set `key = true` on the field that holds the identifier."
                )
        if not any(field.query for field in self.fields):
            raise ValueError(
                "At least one field must take part in retrieval. Received: `query = false` on every field."
            )

    def __len__(self) -> int:
        return len(self.fields)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the M fields."""
        return tuple(field.name for field in self.fields)

    @property
    def user_index(self) -> int:
        """Index of the field that identifies the user."""
        return self._key_index("user")

    @property
    def item_index(self) -> int:
        """Index of the field that identifies the item."""
        return self._key_index("item")

    @property
    def query_indices(self) -> tuple[int, ...]:
        """Indices of the fields that take part in retrieval."""
        return tuple(index for index, field in enumerate(self.fields) if field.query)

    def indices(self, entity: Entity) -> tuple[int, ...]:
        """Indices of the fields of one entity, its key among them."""
        return tuple(index for index, field in enumerate(self.fields) if field.entity == entity)

    def index(self, name: str) -> int:
        """Index of a field by name."""
        if name not in self.names:
            raise ValueError(f"Unknown field. Received: {name!r}. Known fields: {', '.join(self.names)}.")
        return self.names.index(name)

    def _key_index(self, entity: Entity) -> int:
        return next(index for index, field in enumerate(self.fields) if field.entity == entity and field.key)
