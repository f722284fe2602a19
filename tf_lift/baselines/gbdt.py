"""Gradient-boosted trees (Friedman, Annals of Statistics 2001; LightGBM: Ke et al., NeurIPS 2017).

Of slates: LambdaMART (Burges, MSR-TR-2010-82) and XE-NDCG (Bruch, WWW 2021).
"""

import dataclasses
from typing import Any

import numpy as np
from tqdm import tqdm

from tf_lift import metrics
from tf_lift.baselines.gbdt_features import build_features
from tf_lift.baselines.no_learning import Candidates, apply_platt, fit_platt
from tf_lift.baselines.peer import check_choice, check_setting
from tf_lift.baselines.ranker_job import RankerJob, measured
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.config import RELATIONS
from tf_lift.slate_grid import MIN_RANKED, is_ranking

OBJECTIVES = ("binary", "lambdarank", "rank_xendcg")
_MOST_CATEGORIES = 256  # of a field whose ids trees may group; ids beyond are one group


@dataclasses.dataclass(frozen=True)
class GBDTSettings:
    """What the tuner may choose."""

    objective: str = "binary"
    """What trees are fitted to, in LightGBM's words: `binary`, the log loss of each label; of slates that are ranked also `lambdarank`
    (LambdaMART: pairs, weighed by what their order changes in NDCG) and `rank_xendcg` (XE-NDCG: cross-entropy of a slate's softmax and
    its gains, perturbed at random)."""
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
    """Trees without a better validation LogLoss, or NDCG@10 where slates are what is learnt, before stopping."""
    context_length: int = 20
    """Rows of the user's history that are counted."""
    recency_days: tuple[float, ...] = ()
    """As `predictor.recency_days`: rows of each item field's value within each of these spans, and the seconds since the newest; empty:
    neither."""
    relations: str = "none"
    """As `situation.relations`: what is read of the data set's transition tables for these rows; `none`: nothing."""

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("relations", self.relations, tuple(RELATIONS))
        check_setting("num_leaves", self.num_leaves, 2, 1 << 14)
        check_setting("learning_rate", self.learning_rate, 1e-4, 1.0)
        check_setting("l2", self.l2, 0.0, 1e6)
        check_setting("feature_share", self.feature_share, 0.01, 1.0)
        check_setting("context_length", self.context_length, 1, 1 << 14)
        for days in self.recency_days:
            check_setting("recency_days", days, 1e-4, 36_525.0)
        for name in ("min_rows", "num_trees", "patience"):
            check_setting(name, getattr(self, name), 1, 1 << 20)

    @property
    def ranks_slates(self) -> bool:
        """Whether the order of a slate's candidates is what is learnt."""
        return self.objective != "binary"


@dataclasses.dataclass(frozen=True)
class _Split:
    """Candidates as LightGBM takes them: features float32 [n, D], and their columns that hold ids."""

    candidates: Candidates
    features: np.ndarray
    categories: list[int]

    @property
    def slate_sizes(self) -> np.ndarray:
        """int64 [S], candidates of each slate."""
        return np.bincount(self.candidates.slates)

    @property
    def weights(self) -> np.ndarray:
        """float64 [n], the same in sum for each slate."""
        return 1.0 / self.slate_sizes[self.candidates.slates]


def score_gbdt(job: RankerJob) -> RankerScores:
    """Fits trees to the train candidates' labels, one slate weighing as much as another, and scores the splits.

    Each tree is a step down the gradient of the objective (Friedman's algorithm 5), grown leaf by leaf on histograms; validation
    chooses their number. Probabilities with objective `binary`, else scores.

    Raises:
        ValueError: LightGBM is not installed, or the objective is one of slates that are too short.
    """
    lightgbm = _import_lightgbm()
    settings: GBDTSettings = job.settings
    seconds: dict[str, float] = {}
    with measured(seconds, "features"):
        splits = _read_splits(job)
    with measured(seconds, "fit"):
        train, validation = (
            _make_dataset(lightgbm, splits[name], settings.ranks_slates, job.seed) for name in ("train", "validation")
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
            scores[split] = np.asarray(booster.predict(splits[split].features), np.float64)
    labels, answers = splits["validation"].candidates.labels, scores["validation"]
    probabilities = apply_platt(answers, fit_platt(answers, labels)) if settings.ranks_slates else answers
    num_leaves = sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
    return RankerScores(
        answers,
        scores.get("test", np.zeros(0)),
        is_probability=not settings.ranks_slates,
        seconds=seconds,
        num_parameters=num_leaves,
        validation_loss=metrics.log_loss(labels, probabilities),
    )


def _read_splits(job: RankerJob) -> dict[str, _Split]:
    """Train, validation and what the job asks for, by name.

    Raises:
        ValueError: slates are to be ranked and are too short.
    """
    settings: GBDTSettings = job.settings
    splits = {}
    for name in dict.fromkeys(("train", "validation", *job.splits)):
        candidates = job.candidates(name)
        if settings.ranks_slates and not is_ranking(candidates.slates):
            raise ValueError(
                f"Objective {settings.objective!r} needs slates of {MIN_RANKED} candidates or more. Received: "
                f"{np.bincount(candidates.slates).max()} at most in {name}. Choose 'binary'."
            )
        features, categories = build_features(
            job.dataset,
            candidates,
            settings.context_length,
            settings.recency_days,
            RELATIONS[settings.relations],
        )
        features[:, categories] = np.minimum(features[:, categories], _MOST_CATEGORIES)
        splits[name] = _Split(candidates, features, categories)
    return splits


def _make_dataset(lightgbm: Any, split: _Split, ranks_slates: bool, seed: int) -> Any:
    """A split as LightGBM's Dataset.

    Slates are shuffled where they are ranked: LightGBM takes ties in the order of the rows, and the positive is a slate's first, so
    that a constant would have an NDCG of 1.
    """
    labels = split.candidates.labels
    if not ranks_slates:
        return lightgbm.Dataset(split.features, labels, weight=split.weights, categorical_feature=split.categories)
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), split.candidates.slates))
    sizes = split.slate_sizes
    return lightgbm.Dataset(split.features[order], labels[order], group=sizes, categorical_feature=split.categories)


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
        "objective": settings.objective,
        "metric": "ndcg" if settings.ranks_slates else "binary_logloss",
        "eval_at": [10],
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


def _bar(num_trees: int) -> Any:
    """A progress bar over the trees."""
    bar = tqdm(total=num_trees, desc="gbdt", unit="tree", leave=False, mininterval=1.0)

    def update(environment: Any) -> None:
        bar.update(1)

    return update
