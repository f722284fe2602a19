"""How much the local server lets one request ask for."""

from __future__ import annotations

from typing import NamedTuple


class RequestLimits(NamedTuple):
    """How much one request may ask for.

    Attributes:
        max_input_values: Values that one input may have, or declare.
        max_batch_size: Slates, or examples, of a request.
    """

    max_input_values: int
    max_batch_size: int
