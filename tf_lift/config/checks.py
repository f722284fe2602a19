"""Checks that the sections of a configuration share."""


def check_range(section: str, name: str, value: float, low: float, high: float) -> None:
    """Raises a ValueError that names the key where a value is out of its range."""
    if not low <= value <= high:
        raise ValueError(f"`{section}.{name}` must be from {low} to {high}. Received: {value}.")
