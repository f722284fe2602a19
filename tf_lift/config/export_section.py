"""The section `[export]`."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Export:
    """The served model."""

    state_type: Literal["float16", "int8"] = "float16"
    """How the datastore's states are kept. int8 halves them; `python -m benchmarks.state_types` measures what it costs in AUC."""
    warmup_slates: tuple[int, ...] = (1, 10, 100, 500)
    """Candidates of the warm-up requests that a server sends itself before it takes traffic."""

    def __post_init__(self) -> None:
        if not self.warmup_slates or min(self.warmup_slates) < 1:
            raise ValueError(
                f"`export.warmup_slates` must be numbers of candidates, at least 1. Received: {list(self.warmup_slates)}."
            )
