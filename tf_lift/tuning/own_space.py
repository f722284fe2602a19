"""The search space of this project's predictor: its configuration's widths, lengths, rates and switches."""

import typing
from typing import Any

from tf_lift.config import RELATIONS, Config, Encoder, Predictor, Pretraining, Retrieval, Situation
from tf_lift.tuning.search_space import SearchSpace

# Beside these, every switch of `_SECTIONS` is searched, as its type says which values it has.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "retrieval.num_neighbours": (5, 10, 20),
    "retrieval.context_length": (10, 20, 50),
    "encoder.embedding_dim": (8, 16, 32),
    "encoder.state_dim": (16, 32, 64),
    "encoder.num_layers": (1, 2, 3),
    "encoder.num_heads": (1, 2, 4),
    "encoder.dropout_rate": (0.0, 0.1, 0.3),
    "pretraining.mask_ratio": (0.3, 0.6, 0.8),
    "pretraining.learning_rate": (3e-4, 1e-3, 3e-3),
    "pretraining.next_item_weight": (1.0, 4.0),
    "predictor.hidden_dims": ((64,), (200, 80)),
    "predictor.dropout_rate": (0.0, 0.2, 0.5),
    "situation.encoded_neighbours": (0, 4),
    "training.learning_rate": (2e-4, 5e-4, 1e-3),
    "training.learning_rate_decay": ("none", "cosine"),
    "training.l2": (1e-5, 1e-4, 1e-3),
}
_SECTIONS = {
    "retrieval": Retrieval,
    "encoder": Encoder,
    "pretraining": Pretraining,
    "predictor": Predictor,
    "situation": Situation,
}
# Whether tables are kept unread is for runs that share a data set.
_NOT_SEARCHED = frozenset({"situation.tables"})
_OF_NEXT_ITEM = (
    "pretraining.next_item_weight",
    "pretraining.next_item_gap",
    "pretraining.next_item_user",
    "pretraining.share_encoder",
)
_OF_PRETRAINING = (
    "pretraining.targets",
    "pretraining.mask_ratio",
    "pretraining.learning_rate",
    "pretraining.learning_rate_decay",
    "pretraining.next_item",
)
_NEEDS = {
    **dict.fromkeys(_OF_PRETRAINING, ("pretraining.enabled", True)),
    **dict.fromkeys((*_OF_NEXT_ITEM, "predictor.next_item_logit"), ("pretraining.next_item", True)),
    "predictor.residual_logit": ("predictor.target_state", True),
    "situation.encoded_neighbours": ("situation.overlap", True),
}
_OTHERWISE = {"predictor.next_item_logit": False, "situation.encoded_neighbours": 0}


def build_own_space(config: Config) -> SearchSpace:
    """The search space around a configuration, whose own values are the defaults and always among the choices.

    Values that the rest of the configuration excludes are left out.
    """
    choices = _find_switches() | _CHOICES
    choices["situation.relations"] = tuple(RELATIONS)
    if config.split.mode == "rolling":
        choices["predictor.recency_days"] = ((), (1.0, 7.0, 30.0))
    if config.negatives.protocol != "none":
        choices["training.loss"] = ("pointwise", "listwise")
    if config.encoder.kind == "bidirectional":  # sees labels and next items: one loss fits it
        excluded = {name for name in choices if "next_item" in name} | {"encoder.kind", "pretraining.targets"}
        choices = {name: values for name, values in choices.items() if name not in excluded}
    else:
        choices["encoder.kind"] = ("causal", "gru")
    if not (config.has_classes and config.pretraining.mask_ratio):
        choices.pop("pretraining.targets", None)
    rules = {
        "retrieval.context_length": lambda length: length >= config.retrieval.min_future,
        "encoder.num_heads": lambda heads: config.encoder.state_dim % heads == 0,
        "encoder.state_dim": lambda width: width % config.encoder.num_heads == 0,
    }
    for name, rule in rules.items():
        choices[name] = tuple(value for value in choices[name] if rule(value))
    defaults = {name: config.value(name) for name in choices}
    ordered = sorted(choices, key=_depth)  # what another needs comes before it
    return SearchSpace({name: choices[name] for name in ordered}, defaults, _NEEDS, _OTHERWISE)


def _find_switches() -> dict[str, tuple[Any, ...]]:
    """The keys of `_SECTIONS` that are true or false, or one of some words."""
    switches: dict[str, tuple[Any, ...]] = {}
    for section, cls in _SECTIONS.items():
        for key, hint in typing.get_type_hints(cls).items():
            name = f"{section}.{key}"
            if name in _NOT_SEARCHED:
                continue
            if hint is bool:
                switches[name] = (False, True)
            elif typing.get_origin(hint) is typing.Literal:
                switches[name] = typing.get_args(hint)
    return switches


def _depth(name: str) -> int:
    """How many settings must have a value for this one to say anything."""
    return 1 + _depth(_NEEDS[name][0]) if name in _NEEDS else 0
