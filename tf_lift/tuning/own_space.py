"""The search space of this project's predictor: its configuration's widths, lengths, rates and switches."""

import dataclasses
import typing
from typing import Any

from tf_lift.config import RELATIONS, Config, Predictor
from tf_lift.tuning.search_space import SearchSpace

# Beside these, every switch of [predictor] is searched, as its type says which values it has.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "retrieval.num_neighbours": (5, 10, 20),
    "retrieval.context_length": (10, 20, 50),
    "encoder.embedding_dim": (8, 16, 32),
    "encoder.state_dim": (16, 32, 64),
    "encoder.dropout_rate": (0.0, 0.1, 0.3),
    "encoder.user_fields": (False, True),
    "pretraining.mask_ratio": (0.3, 0.6, 0.8),
    "pretraining.learning_rate": (3e-4, 1e-3, 3e-3),
    "pretraining.learning_rate_decay": ("none", "cosine"),
    "pretraining.next_item": (False, True),
    "pretraining.next_item_gap": (False, True),
    "pretraining.next_item_user": (False, True),
    "predictor.hidden_dims": ((64,), (200, 80)),
    "predictor.dropout_rate": (0.0, 0.2, 0.5),
    "training.learning_rate": (2e-4, 5e-4, 1e-3),
    "training.learning_rate_decay": ("none", "cosine"),
    "training.l2": (1e-5, 1e-4, 1e-3),
}
_NEEDS = {
    "predictor.residual_logit": ("predictor.target_state", True),
    "pretraining.next_item_gap": ("pretraining.next_item", True),
    "pretraining.next_item_user": ("pretraining.next_item", True),
    "predictor.next_item_logit": ("pretraining.next_item", True),
}


def build_own_space(config: Config) -> SearchSpace:
    """The search space around a configuration, whose own values are the defaults and always among the choices.

    Values that the rest of the configuration excludes are left out.
    """
    choices = dict(_CHOICES)
    if config.situation.transitions is not None:  # the tables are there: which of them are read is a switch
        choices["situation.relations"] = tuple(kind for kind, names in RELATIONS.items() if names)
    if config.split.mode == "rolling":
        choices["predictor.recency_days"] = ((), (1.0, 7.0, 30.0))
    if config.negatives.protocol != "none":
        choices["training.loss"] = ("pointwise", "listwise")
    for name, hint in typing.get_type_hints(Predictor).items():
        if hint is bool:
            choices[f"predictor.{name}"] = (False, True)
        elif typing.get_origin(hint) is typing.Literal:
            choices[f"predictor.{name}"] = typing.get_args(hint)
    if config.encoder.kind == "bidirectional":
        choices = {name: values for name, values in choices.items() if "next_item" not in name}
    rules = {
        "retrieval.context_length": lambda length: length >= config.retrieval.min_future,
        "encoder.state_dim": lambda width: width % config.encoder.num_heads == 0,
    }
    for name, rule in rules.items():
        choices[name] = tuple(value for value in choices[name] if rule(value))
    defaults = {}
    for name in choices:
        section, _, key = name.partition(".")
        defaults[name] = dataclasses.asdict(getattr(config, section))[key]
    return SearchSpace(choices, defaults, _NEEDS)
