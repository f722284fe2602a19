"""Random draws that depend on a row and a seed alone, whatever worker makes them."""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, a bijection of uint64."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def draw(seed: int, purpose: int, *keys: np.ndarray) -> np.ndarray:
    """uint64 draws, one for each tuple of integer keys (arrays that broadcast together)."""
    state = mix(np.asarray([seed], np.int64).astype(np.uint64) * _GOLDEN + np.uint64(purpose))
    for key in keys:
        state = mix(state + _GOLDEN + np.asarray(key).astype(np.int64).astype(np.uint64))
    return state


def uniform(draws: np.ndarray) -> np.ndarray:
    """float64 in [0, 1)."""
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(draws: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """int64 from 0 to bounds - 1; bounds must be positive."""
    return (draws % np.asarray(bounds).astype(np.uint64)).astype(np.int64)
