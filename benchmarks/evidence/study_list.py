"""The paper's studies and this project's own questions, as the rows of a table each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evidence.evaluation_set import BY_AGE, BY_GAP, Slicing
from tf_lift.config import Config
from tf_lift.tuning.trial_runner import OWN

# A bidirectional encoder sees every row of a window: it cannot be asked for a row that it sees, nor for the next item.
_AT_MASKED_ROWS = {
    "pretraining.targets": "masked",
    "pretraining.next_item": False,
    "predictor.next_item_logit": False,
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a study.

    Attributes:
        label: as tables and plots call it.
        settings: "section.key" -> value, where they differ from the configuration's.
        ranker: a name of the registry.
    """

    label: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranker: str = OWN


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, and the rows that answer it.

    Attributes:
        title: of its tables.
        question: what it asks, and where the paper does.
        variants: the first is what the others are compared with.
        slicing: the columns.
    """

    title: str
    question: str
    variants: Sequence[Variant]
    slicing: Slicing = BY_GAP


def _encoders(config: Config) -> Study:
    own, is_masked = config.encoder.kind, config.pretraining.targets == "masked" and not config.pretraining.next_item
    variants = [Variant(f"{own}, pretrained"), Variant(f"{own}, not pretrained", {"pretraining.enabled": False})]
    if not is_masked:
        variants.append(Variant(f"{own}, pretrained at masked rows", _AT_MASKED_ROWS))
    for kind in ("causal", "bidirectional", "gru"):
        if kind == own:
            continue
        settings: dict[str, Any] = {"encoder.kind": kind}
        words = f"{kind}, pretrained"
        if kind == "bidirectional" and not is_masked:
            settings, words = settings | _AT_MASKED_ROWS, f"{words} at masked rows"
        variants += [
            Variant(words, settings),
            Variant(f"{kind}, not pretrained", settings | {"pretraining.enabled": False}),
        ]
    return Study("Encoders", "Which encoder, and is pretraining worth it? (Table 4)", variants)


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
    others = [kind for kind in ("all", "future", "past", "any", "none") if kind != own]
    variants = [Variant(f"relations: {own}"), *(Variant(kind, {"situation.relations": kind}) for kind in others)]
    return Study(
        "Situation futures", "Does it help to know what people went on to? (Table 5, asked of the situation)", variants
    )


def _numbers(title: str, question: str, key: str, symbol: str, values: Sequence[float], config: Config) -> Study:
    section, _, name = key.partition(".")
    own = getattr(getattr(config, section), name)
    others = [Variant(f"{symbol} = {value}", {key: value}) for value in values if value != own]
    return Study(title, question, [Variant(f"{symbol} = {own}"), *others])


def _inference(_: Config) -> Study:
    rankers = [Variant(name, ranker=name) for name in (OWN, "rim", "bert4rec")]
    return Study("Inference", "What does an answer cost? (Figure 5: see µs)", rankers)


def _retrieval(config: Config) -> Study:
    own = Variant(f"tf_lift, BM25, K = {config.retrieval.num_neighbours}")
    none = Variant("tf_lift, no neighbours' contexts", {"predictor.contexts": "none"})
    peers = [Variant(f"{name}, {words}", ranker=name) for name, words in (("rim", "BM25"), ("dert", "learned"))]
    return Study("Retrieval", "BM25 or learned retrieval?", [own, none, *peers])


def _drift(config: Config) -> Study:
    variants = [Variant("as configured"), Variant("without pretraining", {"pretraining.enabled": False})]
    if config.situation.transitions is not None:
        variants.append(Variant("without situation", {"situation.relations": "none"}))
    variants.append(Variant("popularity", ranker="popularity"))
    return Study("Drift", "How do numbers change with the time since the pool's end?", variants, BY_AGE)


def find_study(name: str, config: Config) -> Study:
    """The study of a name around a configuration.

    Raises:
        ValueError: there is none, or the configuration lacks what it needs.
    """
    studies = {
        "encoders": _encoders,
        "contexts": _contexts,
        "situation": _situation,
        "mask_ratio": lambda config: _numbers(
            "Mask ratio",
            "How many behaviours to mask? (Figure 4)",
            "pretraining.mask_ratio",
            "ratio",
            (0.2, 0.4, 0.6, 0.8),
            config,
        ),
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
    if name not in studies:
        raise ValueError(f"--study must be one of {', '.join(studies)}. Received: {name!r}.")
    return studies[name](config)
