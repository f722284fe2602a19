"""The result of one ranker with one seed, on disk, under a hash of all that it depends on."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import beam
import tf_lift
from tf_lift.config.hashing import hash_json
from tf_lift.workspace import write_json

_RESULT, _ANSWERS = "result.json", "answers.npz"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes:
        scores: float64 [n], one for each test candidate, the higher, the better.
        probabilities: float64 [n], of a positive label.
        seconds: of each step, wall time.
        num_parameters: numbers of all weights; of trees, their leaves.
        candidates_hash: of what was scored.
        code: `hash_code` of what trained and scored; data set and encoder may have been there.
        validation: what settings are compared by, on validation; None of a result of an earlier version.
    """

    scores: np.ndarray
    probabilities: np.ndarray
    seconds: Mapping[str, float]
    num_parameters: int
    candidates_hash: str
    code: str = ""
    validation: float | None = None


@functools.cache
def hash_code() -> str:
    """A hash of this project's modules, as they are at the first call."""
    digest = hashlib.sha256()
    for package in (tf_lift, beam):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(
                f"{package.__name__}/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0"
            )
    return digest.hexdigest()[:16]


class RunStore:
    """A folder of results.

    A result stays when the code changes, as most changes leave numbers as they are; it remembers which code trained and scored.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run_dir(self, identity: Mapping[str, Any]) -> Path:
        """The folder of a run: readable first, then a hash of its identity.

        Args:
            identity: JSON values: all that the result depends on, `ranker` and `seed` among them.
        """
        digest = hash_json(identity)
        name = "".join(letter if letter.isalnum() else "_" for letter in str(identity["ranker"]))
        return self._folder / f"{name}-seed_{identity['seed']}-{digest}"

    def read(self, identity: Mapping[str, Any]) -> RunResult | None:
        """The result of a run; None where there is none, or one of another identity."""
        folder = self.run_dir(identity)
        path = folder / _RESULT
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if content.pop("identity", None) != json.loads(json.dumps(identity)):
            return None
        with np.load(folder / _ANSWERS) as answers:
            return RunResult(answers["scores"], answers["probabilities"], **content)

    def write(self, identity: Mapping[str, Any], result: RunResult) -> None:
        """Writes a result; the JSON, which says that it is whole, comes last."""
        folder = self.run_dir(identity)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / _ANSWERS, scores=result.scores, probabilities=result.probabilities)
        rest = {
            "seconds": dict(result.seconds),
            "num_parameters": result.num_parameters,
            "candidates_hash": result.candidates_hash,
            "code": result.code,
            "validation": result.validation,
        }
        write_json(folder / _RESULT, {"identity": dict(identity), **rest})
