"""The candidates that all rankers of a table are judged on."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from tf_lift.baselines.no_learning import Candidates
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.evaluate import describe_protocol, read_candidates
from tf_lift.evaluation_slices import slice_masks
from tf_lift.workspace import Workspace

POOLED = "pooled"
_COLUMNS = {"all": POOLED} | {
    f"gap {words}": words for words in ("at most 60 s", "60 s to 6 h", "over 6 h")
}  # slice -> heading


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The test split of a data set, and the validation labels that scores are turned into probabilities with.

    Attributes:
        labels: float64 [n], of the real candidates, flat, in file order.
        slates: int64 [n], ascending: which slate each belongs to.
        users: int64 [S], dense number of each slate's user, from 0.
        columns: heading -> bool [S], which slates count in a column of the tables; POOLED holds all.
        validation_labels: float64 [m].
        protocol: one sentence to print beside every number.
        candidates_hash: sha256 of the test candidates' fields and labels.
    """

    labels: np.ndarray
    slates: np.ndarray
    users: np.ndarray
    columns: Mapping[str, np.ndarray]
    validation_labels: np.ndarray
    protocol: str
    candidates_hash: str

    @property
    def num_users(self) -> int:
        """U."""
        return int(self.users.max()) + 1


def read_evaluation_set(workspace: Workspace) -> EvaluationSet:
    """Reads the test candidates of a data set.

    Raises:
        ValueError: the data set is missing or stale.
    """
    dataset = open_dataset(workspace)
    config = workspace.config
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    test, validation = (read_candidates(dataset, spec, split) for split in ("test", "validation"))
    batches = read_examples(dataset.example_pattern("test"), spec, dataset.row_references, config.training.batch_size)
    rows = np.concatenate([batch["row"].numpy() for batch in batches])
    masks = slice_masks(dataset, rows)
    _, users = np.unique(dataset.log.user_indices()[rows], return_inverse=True)
    return EvaluationSet(
        test.labels.astype(np.float64),
        test.slates,
        users.astype(np.int64),
        {heading: masks[name] for name, heading in _COLUMNS.items() if masks[name].any()},
        validation.labels.astype(np.float64),
        describe_protocol(config),
        hash_candidates(test),
    )


def hash_candidates(candidates: Candidates) -> str:
    """sha256 of candidates' fields, slates and labels, in hexadecimal: two tables with the same one rank the same."""
    digest = hashlib.sha256()
    for values, dtype in ((candidates.fields, "<i4"), (candidates.slates, "<i8"), (candidates.labels, "<f4")):
        digest.update(np.ascontiguousarray(values, dtype).tobytes())
    return digest.hexdigest()
