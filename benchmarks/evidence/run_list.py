"""Which rankers are judged together: configurations with the same candidates share one table, and one run of each peer."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.evaluation_set import BY_GAP, EvaluationSet, Slicing, read_evaluation_set
from tf_lift.baselines.registry import RankerEntry, find_ranker
from tf_lift.config import parse_assignments
from tf_lift.slate_grid import MIN_RANKED, is_ranking
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.workspace import Workspace

OURS = "ours"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: one ranker on one configuration, with every seed.

    Attributes:
        label: as the table calls it.
        entry: the ranker.
        source: the configuration.
        settings: of the ranker, which are not searched where any is given.
    """

    label: str
    entry: RankerEntry
    source: ConfigSource
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Group:
    """What one table holds.

    Attributes:
        name: of the first configuration.
        evaluation: the candidates of all of them.
        sources: the configurations.
    """

    name: str
    evaluation: EvaluationSet
    sources: tuple[ConfigSource, ...]


def find_groups(
    sources: Sequence[ConfigSource],
    preprocess: Callable[[ConfigSource], None],
    wants_ranking: bool,
    slicing: Slicing = BY_GAP,
) -> list[Group]:
    """Configurations by what is ranked and learnt from, in the order in which they are named.

    A peer is trained on a group's first configuration alone, so all of a group have the same train window as well.

    Args:
        sources: the configurations.
        preprocess: makes the data set of one, unless it is there.
        wants_ranking: whether slates are to be long enough to be ranked, or too short.
        slicing: the columns of their tables.

    Raises:
        ValueError: a configuration is of the other kind.
    """
    groups: dict[tuple[Any, ...], Group] = {}
    for source in sources:
        preprocess(source)
        config = source.load()
        evaluation = read_evaluation_set(Workspace(config), slicing)
        if is_ranking(evaluation.slates) != wants_ranking:
            other, needed = ("ctr", "at least") if wants_ranking else ("top_n", "fewer than")
            raise ValueError(
                f"The slates must have {needed} {MIN_RANKED} candidates. Received: configuration {config.name!r}. "
                f"Use `python -m benchmarks.{other}` for it."
            )
        key = (evaluation.candidates_hash, evaluation.learnt_from, evaluation.protocol)
        group = groups.get(key, Group(config.name, evaluation, ()))
        groups[key] = dataclasses.replace(group, sources=(*group.sources, source))
    return list(groups.values())


def plan_rows(group: Group, rankers: Sequence[str]) -> list[Row]:
    """The rows of a group's table: peers on its first configuration, our own rankers on all.

    Rankers that cannot rank the group's kind of labels are left out, which the log says.

    Args:
        group: the group.
        rankers: names of the registry, a peer's with its settings if need be: "sasrec embedding_dim=128 num_heads=2".

    Raises:
        ValueError: an unknown ranker or setting.
    """
    rows = []
    for name in rankers:
        entry, settings = _parse_ranker(name)
        protocol = group.sources[0].load().negatives.protocol
        if protocol not in entry.protocols:
            logging.info(
                "%s: %s is left out; it needs labels of protocol %s.", group.name, name, " or ".join(entry.protocols)
            )
            continue
        if entry.kind != OURS or len(group.sources) == 1:
            rows.append(Row(name, entry, group.sources[0], settings))
            continue
        names = [source.load().name for source in group.sources]
        if len(set(names)) < len(names):  # runs of one configuration: their files differ
            names = [source.path.stem for source in group.sources]
        rows += [Row(f"{name}: {own}", entry, source) for own, source in zip(names, group.sources, strict=True)]
    return rows


def _parse_ranker(text: str) -> tuple[RankerEntry, dict[str, Any]]:
    """A ranker of the registry, and the settings that stand after its name."""
    words = text.split()
    name = list(itertools.takewhile(lambda word: "=" not in word, words))
    entry = find_ranker(" ".join(name))
    try:
        settings = parse_assignments(words[len(name) :])
    except ValueError as error:
        raise ValueError(
            f"A ranker's settings must read key=value, without spaces, each key once. Received: {text!r}."
        ) from error
    if settings and entry.settings_class is None:
        raise ValueError(
            f"Settings after a name are for peers that have their own. Received: {text!r}, whose settings are keys of the "
            "configuration. Pass --set, or a configuration for each."
        )
    entry.read_settings(settings)
    return entry, settings


def parse_sources(configs: str, overrides: Sequence[str]) -> list[ConfigSource]:
    """The configurations of a comma-separated list of files.

    Raises:
        ValueError: none is named.
    """
    paths = [text.strip() for text in configs.split(",") if text.strip()]
    if not paths:
        raise ValueError("--configs must name at least one file. Received: none.")
    return [ConfigSource(Path(path), tuple(overrides)) for path in paths]
