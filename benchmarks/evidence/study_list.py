"""The paper's studies and this project's own questions, as the rows of a table each."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.evidence.evaluation_set import BY_AGE, BY_GAP, Slicing
from tf_lift.baselines.dert import DERTSettings
from tf_lift.config import RELATIONS, Config
from tf_lift.tuning.trial_runner import OWN

# A bidirectional encoder sees every row of a window: it cannot be asked for a row that it sees, nor for the next item.
_AT_MASKED_ROWS = {
    "pretraining.targets": "masked",
    "pretraining.next_item": False,
    "predictor.next_item_logit": False,
}
_NO_OVERLAP = {"situation.overlap": False, "situation.encoded_neighbours": 0}
_UNTRAINED = {"pretraining.enabled": False, "predictor.joint": False}  # an encoder as it was drawn, and it stays so
_TRAINED_JOINTLY = {"pretraining.enabled": False, "predictor.joint": True, "predictor.freeze_embeddings": False}
_JOINTLY = "trained with the predictor alone"

COST = "µs to read and score a candidate"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a study.

    Attributes:
        label: as tables and plots call it.
        settings: "section.key" -> value, where they differ from the configuration's.
        ranker: a name of the registry.
        value: where the row stands on the study's axis.
    """

    label: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranker: str = OWN
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, and the rows that answer it.

    Attributes:
        title: of its tables.
        question: what it asks, and where the paper does.
        variants: the first is what the others are compared with.
        slicing: the columns.
        axis: what a plot shows the leading metric along: words for the variants' `value`s, or COST; empty: there is no such plot.
    """

    title: str
    question: str
    variants: Sequence[Variant]
    slicing: Slicing = BY_GAP
    axis: str = ""


def _encoders(config: Config) -> Study:
    own, is_masked = config.encoder.kind, config.pretraining.targets == "masked" and not config.pretraining.next_item
    is_on = {"pretraining.enabled": True, "predictor.joint": False}
    variants = [Variant(f"{own}, {_training_words(config)}")]
    variants += [Variant(f"{own}, pretrained", is_on), Variant(f"{own}, not trained", _UNTRAINED)]
    if config.has_classes:
        variants.append(Variant(f"{own}, pretrained at masked rows", is_on | _AT_MASKED_ROWS))
    for kind in ("causal", "bidirectional", "gru"):
        settings: dict[str, Any] = {"encoder.kind": kind}
        words = f"{kind}, pretrained"
        if kind == "bidirectional" and not config.has_classes:
            logging.info("Encoders: bidirectional is left out; its loss needs rows of more than one class (eq. 10).")
            continue
        if kind == "bidirectional" and not is_masked:
            settings, words = settings | _AT_MASKED_ROWS, f"{words} at masked rows"
        variants += [Variant(words, settings | is_on), Variant(f"{kind}, not trained", settings | _UNTRAINED)]
    if _training_words(config) != _JOINTLY:
        variants.append(Variant(f"{own}, {_JOINTLY}", _TRAINED_JOINTLY))
    return Study("Encoders", "Which encoder, and is pretraining worth it? (Table 4)", variants)


def _training_words(config: Config) -> str:
    """How a configuration's encoder comes by its weights."""
    if config.pretraining.enabled:
        return "pretrained, then trained with the predictor" if config.predictor.joint else "pretrained"
    return _JOINTLY if config.predictor.joint else "not trained"


def _contexts(config: Config) -> Study:
    own = config.predictor.contexts
    others = [kind for kind in ("both", "history", "future", "none") if kind != own]
    variants = [Variant(f"contexts: {own}"), *(Variant(kind, {"predictor.contexts": kind}) for kind in others)]
    return Study("Contexts of the target's neighbours", "Does it help to read their future? (Table 5)", variants)


def _situation(config: Config) -> Study:
    if config.situation.transitions is None:
        raise ValueError(
            "Study 'situation' needs the tables of transitions. Received: situation.tables = false. Set it to true, and "
            '`situation.relations = "all"`.'
        )
    own = config.situation.relations
    others = [kind for kind in RELATIONS if kind != own]
    variants = [Variant(f"relations: {own}"), *(Variant(kind, {"situation.relations": kind}) for kind in others)]
    return Study(
        "Situation futures", "Does it help to know what people went on to? (Table 5, asked of the situation)", variants
    )


def _overlap(_: Config) -> Study:
    counted = _NO_OVERLAP | {"situation.overlap": True}
    variants = [
        Variant("as configured"),
        Variant("no neighbours by overlap", _NO_OVERLAP),
        Variant("neighbours by overlap", counted),
        Variant("and 4 encoded futures", counted | {"situation.encoded_neighbours": 4}),
    ]
    question = "Does it help to read the rows of people in the same situation, counted, or encoded as in eq. 14?"
    return Study("Neighbours of the situation", question, variants)


def _next_item(config: Config) -> Study:
    section = config.pretraining
    if not (section.enabled and section.next_item and config.predictor.next_item_logit):
        raise ValueError(
            "Study 'next_item' needs the next item's loss and logit. Received: pretraining.enabled = "
            f"{str(section.enabled).lower()}, pretraining.next_item = {str(section.next_item).lower()}, predictor.next_item_logit = "
            f"{str(config.predictor.next_item_logit).lower()}. Set all three to true."
        )
    settings = {
        words: {"pretraining.next_item_gap": reads_gap, "pretraining.next_item_user": reads_user}
        for words, reads_gap, reads_user in (
            ("gap and user", True, True),
            ("gap", True, False),
            ("user", False, True),
            ("neither", False, False),
        )
    }
    own = next(
        words for words, values in settings.items() if all(config.value(key) == value for key, value in values.items())
    )
    none = {"pretraining.next_item": False, "predictor.next_item_logit": False} | settings["neither"]
    others = [Variant(words, values) for words, values in settings.items() if words != own]
    question = "Does it help to know after how long, and by whom, the next item is asked for, or to ask for it at all?"
    return Study("Next item", question, [Variant(f"next item by: {own}"), *others, Variant("no next item", none)])


def _numbers(title: str, question: str, key: str, symbol: str, values: Sequence[float], config: Config) -> Study:
    own = config.value(key)
    others = [Variant(f"{symbol} = {value}", {key: value}, value=value) for value in values if value != own]
    return Study(title, question, [Variant(f"{symbol} = {own}", value=own), *others], axis=f"{key} ({symbol})")


def _mask_ratio(config: Config) -> Study:
    if not config.pretraining.enabled:
        raise ValueError("Study 'mask_ratio' needs pretraining. Received: pretraining.enabled = false. Set it to true.")
    question, key = "How many behaviours to mask? (Figure 4)", "pretraining.mask_ratio"
    return _numbers("Mask ratio", question, key, "ratio", (0.2, 0.4, 0.6, 0.8), config)


def _inference(_: Config) -> Study:
    rankers = [Variant(name, ranker=name) for name in (OWN, "rim", "bert4rec")]
    question = "What does a score cost, with neighbours found before? (Figure 5: µs, reading and the first batch's tracing among them)"
    return Study("Inference", question, rankers, axis=COST)


def _retrieval(config: Config) -> Study:
    own = Variant(f"tf_lift, BM25, contexts: {config.predictor.contexts}")
    none = Variant("tf_lift, no neighbours' contexts", {"predictor.contexts": "none"})
    learned = f"learned, the newest {DERTSettings().max_pool_rows:,} rows"
    peers = [Variant(f"{name}, {words}", ranker=name) for name, words in (("rim", "BM25"), ("dert", learned))]
    return Study("Retrieval", "BM25 or learned retrieval?", [own, none, *peers])


def _drift(_: Config) -> Study:
    nothing = {"situation.relations": "none"} | _NO_OVERLAP
    variants = [
        Variant("as configured"),
        Variant("encoder not trained", _UNTRAINED),
        Variant("without situation", nothing),
        Variant("popularity", ranker="popularity"),
    ]
    return Study("Drift", f"How do numbers change with {BY_AGE.words}?", variants, BY_AGE)


STUDIES: Mapping[str, Callable[[Config], Study]] = {
    "encoders": _encoders,
    "contexts": _contexts,
    "situation": _situation,
    "overlap": _overlap,
    "next_item": _next_item,
    "mask_ratio": _mask_ratio,
    "neighbours": lambda config: _numbers(
        "Neighbours", "How many? (Figure 7)", "retrieval.num_neighbours", "K", (1, 5, 10, 20), config
    ),
    "length": lambda config: _numbers(
        "Length of contexts", "How long? (Figure 8)", "retrieval.context_length", "L", (5, 10, 20, 50), config
    ),
    "inference": _inference,
    "retrieval": _retrieval,
    "drift": _drift,
}


def find_study(name: str, config: Config) -> Study:
    """The study of a name around a configuration.

    Raises:
        ValueError: there is none, or the configuration lacks what it needs.
    """
    if name not in STUDIES:
        raise ValueError(f"--study must be one of {', '.join(STUDIES)}. Received: {name!r}.")
    return STUDIES[name](config)
