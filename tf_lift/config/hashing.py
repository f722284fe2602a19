"""The name of a value in file names and manifests."""

import hashlib
import json
from typing import Any


def hash_json(value: Any) -> str:
    """A hash of a JSON value, in which the order of keys does not count.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
