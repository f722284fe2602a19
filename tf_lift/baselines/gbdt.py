"""Gradient-boosted trees (Friedman, Annals of Statistics 2001; LightGBM: Ke et al., NeurIPS 2017)."""

import dataclasses
from typing import Any

import numpy as np
from tqdm import tqdm

from tf_lift import metrics
from tf_lift.baselines.gbdt_features import build_features
from tf_lift.baselines.no_learning import Candidates
from tf_lift.baselines.peer import check_setting
from tf_lift.baselines.ranker_job import RankerJob, measured
from tf_lift.baselines.ranker_scores import RankerScores

_MOST_CATEGORIES = 256  # of a field whose ids trees may group; ids beyond are one group


@dataclasses.dataclass(frozen=True)
class GBDTSettings:
    """What the tuner may choose."""

    num_leaves: int = 31
    """Most leaves of a tree."""
    learning_rate: float = 0.05
    """Weight of each tree."""
    min_rows: int = 50
    """Fewest candidates of a leaf."""
    feature_share: float = 0.8
    """Share of the features that a tree may use."""
    l2: float = 1.0
    """Weight of the squared leaf values."""
    num_trees: int = 1000
    """Most trees."""
    patience: int = 50
    """Trees without a better validation LogLoss before stopping."""
    context_length: int = 20
    """Rows of the user's history that are counted."""
    recency_days: tuple[float, ...] = ()
    """As `predictor.recency_days`: rows of each item field's value within each of these spans, and the seconds since the newest; empty:
    neither."""

    def __post_init__(self) -> None:
        check_setting("num_leaves", self.num_leaves, 2, 1 << 14)
        check_setting("learning_rate", self.learning_rate, 1e-4, 1.0)
        check_setting("feature_share", self.feature_share, 0.01, 1.0)
        check_setting("context_length", self.context_length, 1, 1 << 14)
        for days in self.recency_days:
            check_setting("recency_days", days, 1e-4, 36_525.0)
        for name in ("min_rows", "num_trees", "patience"):
            check_setting(name, getattr(self, name), 1, 1 << 20)


def score_gbdt(job: RankerJob) -> RankerScores:
    """Fits trees to the train candidates' labels, one slate weighing as much as another, and scores the splits.

    Each tree is a step down the gradient of the log loss (Friedman's algorithm 5), grown leaf by leaf on histograms; validation
    chooses their number.

    Raises:
        ValueError: LightGBM is not installed.
    """
    lightgbm = _import_lightgbm()
    settings: GBDTSettings = job.settings
    seconds: dict[str, float] = {}
    with measured(seconds, "features"):
        names = ("train", *dict.fromkeys(("validation", *job.splits)))
        candidates = {name: job.candidates(name) for name in names}
        built = {
            name: build_features(job.dataset, split, settings.context_length, settings.recency_days)
            for name, split in candidates.items()
        }
        features = {name: _cap_categories(*of_split) for name, of_split in built.items()}
    with measured(seconds, "fit"):
        categories = built["train"][1]
        train, validation = (
            lightgbm.Dataset(
                features[name],
                candidates[name].labels,
                weight=_weigh(candidates[name]),
                categorical_feature=categories,
                free_raw_data=False,
            )
            for name in ("train", "validation")
        )
        booster = lightgbm.train(
            _parameters(settings, job.seed),
            train,
            num_boost_round=settings.num_trees,
            valid_sets=[validation],
            callbacks=[lightgbm.early_stopping(settings.patience, verbose=False), _bar(settings.num_trees)],
        )
    scores = {}
    for split in dict.fromkeys(("validation", *job.splits)):
        with measured(seconds, f"score {split}"):
            scores[split] = np.asarray(booster.predict(features[split]), np.float64)
    num_leaves = sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
    return RankerScores(
        scores["validation"],
        scores.get("test", np.zeros(0)),
        is_probability=True,
        seconds=seconds,
        num_parameters=num_leaves,
        validation_loss=metrics.log_loss(candidates["validation"].labels, scores["validation"]),
    )


def _import_lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ValueError(
            f"Ranker 'gbdt' needs LightGBM. Received: {error}. Install the extra with `pip install tf_lift[benchmark]`."
        ) from error
    return lightgbm


def _parameters(settings: GBDTSettings, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "num_leaves": settings.num_leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_rows,
        "feature_fraction": settings.feature_share,
        "lambda_l2": settings.l2,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,  # with `deterministic`: the same trees at any number of threads
        "verbosity": -1,
    }


def _cap_categories(features: np.ndarray, columns: list[int]) -> np.ndarray:
    features[:, columns] = np.minimum(features[:, columns], _MOST_CATEGORIES)
    return features


def _weigh(candidates: Candidates) -> np.ndarray:
    """float64 [n], the same in sum for each slate."""
    return 1.0 / np.bincount(candidates.slates)[candidates.slates]


def _bar(num_trees: int) -> Any:
    """A progress bar over the trees."""
    bar = tqdm(total=num_trees, desc="gbdt", unit="tree", leave=False, mininterval=1.0)

    def update(environment: Any) -> None:
        bar.update(1)

    return update
