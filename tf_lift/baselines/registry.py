"""All rankers of a comparison by name; a ranker's module is imported when it is used."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from typing import Any, Literal

from tf_lift.config import RELATIONS, Config

_ALL = ("none", "rim", "honest")
_PRINTED = "tf_lift.baselines.lift_printed:PRINTED"
_RULES = "tf_lift.baselines.rules:score_rule"
# Sections that no answer depends on, given the data set's manifest and the seed; and those of this project's model.
_NOT_READ = frozenset({"name", "source", "pipeline", "export", "seed", "workspace", "run"})
_OF_OUR_MODEL = frozenset({"encoder", "pretraining", "predictor", "situation"})

# Values that the tuner may choose; the first of each is not always the default.
_MLP: dict[str, tuple[Any, ...]] = {
    "embedding_dim": (8, 16, 32),
    "hidden_dims": ((200, 80), (64,), (256, 128, 64)),
    "dropout_rate": (0.0, 0.2, 0.5),
    "learning_rate": (1e-3, 5e-4, 2e-4),
    "learning_rate_decay": ("none", "cosine"),
    "l2": (1e-5, 1e-4, 1e-3),
    "embedding_l2": (0.0, 1e-3, 1e-2, 1e-1),
}
_POOL: dict[str, tuple[Any, ...]] = _MLP | {"pool_epochs": (0, 5)}
_HISTORY: dict[str, tuple[Any, ...]] = _POOL | {"context_length": (20, 50)}
_SEARCH: dict[str, tuple[Any, ...]] = _POOL | {"search_length": (128, 256), "num_hits": (10, 20, 50)}
_NEXT_ITEM: dict[str, tuple[Any, ...]] = {
    "embedding_dim": (32, 64, 128),
    "dropout_rate": (0.1, 0.2, 0.5),
    "learning_rate": (1e-3, 5e-4, 2e-3),
    "context_length": (20, 50),
    "learn_until": ("pool", "train"),
    "learning_rate_decay": ("none", "cosine"),
    "pretraining_learning_rate_decay": ("none", "cosine"),
    "pretraining_epochs": (20, 50),
}
_SCORED: dict[str, tuple[Any, ...]] = _NEXT_ITEM | {"tune_all": (False, True)}
_BLOCKS: dict[str, tuple[Any, ...]] = {"num_layers": (1, 2, 3), "num_heads": (1, 2, 4)}
_PRINTED_SPACE: dict[str, tuple[Any, ...]] = {
    "encoder.embedding_dim": (8, 16, 32),
    "predictor.hidden_dims": ((200, 80), (64,)),
    "predictor.dropout_rate": (0.0, 0.2, 0.5),
    "training.learning_rate": (1e-3, 5e-4, 2e-4),
    "training.learning_rate_decay": ("none", "cosine"),
    "training.l2": (1e-5, 1e-4, 1e-3),
}


@dataclasses.dataclass(frozen=True)
class RankerEntry:
    """A ranker, without its code.

    Attributes:
        name: as the command line and the tables call it.
        source: where it is defined: paper and equations.
        kind: `rule` has nothing to learn; `learned` is another paper's; `ours` is this project's predictor.
        build_path: "module:name" of a `Peer`, or of a function from `RankerJob` to `RankerScores`.
        settings_path: "module:name" of a frozen dataclass with defaults; empty: settings are the configuration's keys, such as
            "predictor.dropout_rate".
        fixed_path: "module:name" of the configuration's keys that the ranker gives other values before its settings; empty: none.
        config_path: "module:name" of a function from a configuration and settings to what is trained; empty: the ranker has settings of
            its own, or the configuration's are all there is.
        search_space: setting -> the values that the tuner may choose among; of kind "ours" the tuner has its own.
        rolling_space: likewise, where the pool is rolling.
        ranking_space: likewise, where slates are ranked.
        tables_space: likewise, where the data set has transition tables.
        protocols: the kinds of labels (`negatives.protocol`) that it can rank.
    """

    name: str
    source: str
    kind: Literal["rule", "learned", "ours"]
    build_path: str
    settings_path: str = ""
    fixed_path: str = ""
    config_path: str = ""
    search_space: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    rolling_space: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    ranking_space: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    tables_space: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    protocols: tuple[str, ...] = _ALL

    @property
    def build(self) -> Any:
        """What `build_path` names."""
        return _import_path(self.build_path)

    @property
    def settings_class(self) -> Any:
        """What `settings_path` names, None where there is none."""
        return _import_path(self.settings_path) if self.settings_path else None

    @property
    def fixed(self) -> Mapping[str, Any]:
        """What `fixed_path` names, nothing where it is empty."""
        return _import_path(self.fixed_path) if self.fixed_path else {}

    def configure(self, config: Config, settings: Mapping[str, Any]) -> Config:
        """The configuration as `config_path` makes it; where that is empty, as it is: settings are not read.

        Raises:
            ValueError: an unknown setting, or settings that do not fit together.
        """
        return _import_path(self.config_path)(config, settings) if self.config_path else config

    def hash_config(self, config: Config) -> str:
        """Hash of what the ranker's answers depend on in a configuration, beside the data set's manifest, settings and seed."""
        left_out = _NOT_READ | _OF_OUR_MODEL if self.settings_path else _NOT_READ
        return config.section_hash(*(field.name for field in dataclasses.fields(config) if field.name not in left_out))

    def read_settings(self, values: Mapping[str, Any]) -> Any:
        """Settings of `settings_class` with these values, or the values where it is None.

        Raises:
            ValueError: an unknown setting, or a value of another type than its default's.
        """
        cls = self.settings_class
        if cls is None:
            return dict(values)
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for key in values:
            if key not in defaults:
                near = difflib.get_close_matches(key, defaults, n=1)
                advice = f"Did you mean {near[0]!r}?" if near else f"Known settings: {', '.join(defaults) or 'none'}."
                raise ValueError(f"Unknown setting of ranker {self.name!r}. Received: {key!r}. {advice}")
        return cls(**{key: _convert(self.name, key, defaults[key], value) for key, value in values.items()})


def _import_path(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _convert(ranker: str, key: str, default: Any, value: Any) -> Any:
    """A value as read from JSON or TOML, of its default's type."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ValueError(
            f"Setting {key!r} of ranker {ranker!r} must be of type {type(default).__name__}, such as {default!r}. Received: {value!r}."
        )
    return value


def _rule(name: str, source: str, protocols: tuple[str, ...] = _ALL) -> RankerEntry:
    return RankerEntry(name, source, "rule", _RULES, "tf_lift.baselines.rules:RuleSettings", protocols=protocols)


def _peer(module: str, cls: str, source: str, search_space: Mapping[str, tuple[Any, ...]]) -> RankerEntry:
    """A `Peer` cls with its settings clsSettings, both of a module of this package; its name is the module's."""
    path = f"tf_lift.baselines.{module}:{cls}"
    ranking_space = {"loss": ("pointwise", "listwise")}
    return RankerEntry(
        module, source, "learned", path, f"{path}Settings", search_space=search_space, ranking_space=ranking_space
    )


_ENTRIES = (
    _rule("constant", "the rate of positives"),
    _rule("popularity", "positive rows of the item"),
    _rule("user rate + item rate", "log-odds of smoothed rates"),
    _rule("user rate + item rate, up to t", "the same, counted up to each target's time", ("none",)),
    _rule("user rate, up to t", "the user's alone", ("none",)),
    _rule("item rate, up to t", "the item's alone, which does not follow the user's labels", ("none",)),
    _rule("match rule", "whether the user has not had the item"),
    _rule("repeat rule", "whether the user has had the item"),
    _rule("popularity + match rule", "popularity, had items at the bottom"),
    _rule("item cosine, last 20", "cosine of the items' users, summed over the user's newest 20 rows"),
    _rule("transitions, future", "what people had next, counted (this project's DESIGN.md, section 5)"),
    _rule("transitions, past", "what people had before, counted likewise"),
    _rule("transitions, any", "both"),
    _rule("popularity, up to t", "positive rows of the item before each target's time; a rolling pool"),
    _rule("recent popularity, up to t", "the same, of the last days alone: validation chooses how many"),
    _rule(
        "transitions, future, up to t", "what people had next, as of the newest snapshot; a rolling pool with tables"
    ),
    _rule("transitions, past, up to t", "what people had before, likewise"),
    _rule("transitions, any, up to t", "both"),
    RankerEntry(
        "gbdt",
        "Friedman, Annals of Statistics 2001, algorithm 5; LightGBM: Ke et al., NeurIPS 2017; Burges, MSR-TR-2010-82; Bruch, WWW 2021",
        "learned",
        "tf_lift.baselines.gbdt:score_gbdt",
        "tf_lift.baselines.gbdt:GBDTSettings",
        search_space={
            "num_leaves": (7, 15, 31, 63),
            "learning_rate": (0.02, 0.05, 0.1),
            "min_rows": (20, 50, 200),
            "feature_share": (0.5, 0.8, 1.0),
            "l2": (0.0, 1.0, 10.0),
            "context_length": (20, 50),
        },
        rolling_space={"recency_days": ((), (1.0, 7.0, 30.0))},
        ranking_space={"objective": ("binary", "lambdarank", "rank_xendcg")},
        tables_space={"relations": tuple(RELATIONS)},
    ),
    _peer("deepfm", "DeepFM", "Guo et al., IJCAI 2017, eqs. 1 to 4", _POOL),
    _peer("din", "DIN", "Zhou et al., KDD 2018, eq. 3", _HISTORY),
    _peer(
        "dien", "DIEN", "Zhou et al., AAAI 2019, eqs. 2 to 8, 11 and 12", _HISTORY | {"auxiliary_weight": (0.1, 1.0)}
    ),
    _peer("sim", "SIM", "Pi et al., CIKM 2020, hard search", _SEARCH | {"context_length": (20, 50)}),
    _peer("ubr", "UBR", "Qin et al., SIGIR 2020, BM25 in the user's own history", _SEARCH),
    _peer("rim", "RIM", "Qin et al., KDD 2021, attention and products over BM25 neighbours and their labels", _MLP),
    _peer(
        "dert",
        "DERT",
        "Zheng et al., KDD 2023, inner products of row vectors; RIM's predictor",
        _MLP | {"key_dim": (16, 32)},
    ),
    _peer(
        "fate", "FATE", "Wu et al., NeurIPS 2021, messages between rows and values", _POOL | {"hidden_rate": (0.1, 0.3)}
    ),
    _peer(
        "bert4rec",
        "BERT4Rec",
        "Sun et al., CIKM 2019, eqs. 7 and 8; its CTR form of LIFT's Table 2",
        _NEXT_ITEM | _BLOCKS | {"mask_ratio": (0.1, 0.2, 0.4)},
    ),
    _peer("gru4rec", "GRU4Rec", "Hidasi et al., ICLR 2016, eqs. 1 to 4, with a softmax over all items", _SCORED),
    _peer(
        "sasrec",
        "SASRec",
        "Kang and McAuley, ICDM 2018, eqs. 1 to 5, with a softmax over all items",
        _SCORED | _BLOCKS,
    ),
    RankerEntry(
        "lift",
        "Zheng et al., KDD 2025, eqs. 4 to 18 as printed; eq. 13's idf is the configuration's",
        "learned",
        "tf_lift.baselines.lift_printed:score_printed",
        fixed_path=_PRINTED,
        config_path="tf_lift.baselines.lift_printed:configure_printed",
        search_space={"pretraining.mask_ratio": (0.3, 0.6, 0.8), "pretraining.learning_rate": (3e-4, 1e-3, 3e-3)}
        | _PRINTED_SPACE,
    ),
    RankerEntry(
        "lift, no pretraining",
        "the same, with the encoder's initial weights",
        "learned",
        "tf_lift.baselines.lift_printed:score_without_pretraining",
        fixed_path=_PRINTED,
        config_path="tf_lift.baselines.lift_printed:configure_without_pretraining",
        search_space=_PRINTED_SPACE,
    ),
    RankerEntry(
        "tf_lift",
        "this project; Zheng et al., KDD 2025, eqs. 4 to 18, and the switches of its configuration",
        "ours",
        "tf_lift.baselines.own_model:score_own",
    ),
)
RANKERS: dict[str, RankerEntry] = {entry.name: entry for entry in _ENTRIES}


def find_ranker(name: str) -> RankerEntry:
    """The entry of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in RANKERS:
        near = difflib.get_close_matches(name, RANKERS, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else f"Known rankers: {', '.join(RANKERS)}."
        raise ValueError(f"Unknown ranker. Received: {name!r}. {advice}")
    return RANKERS[name]
