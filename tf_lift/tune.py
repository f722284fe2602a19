"""Searches a ranker's settings on validation: `python -m tf_lift.tune --config configs/X.toml --trials 20`."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tf_lift.baselines.registry import RANKERS
from tf_lift.config import parse_assignments
from tf_lift.config.flags import add_config_flags
from tf_lift.strategy import prepare_devices
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.ranker_tuner import TUNERS
from tf_lift.tuning.search import run_search
from tf_lift.tuning.trial_runner import OWN, TrialRunner, preprocess_in_a_process

_COLUMNS_OF_A_FILE = 150


def run(
    source: ConfigSource, ranker: str, tuner: str, num_trials: int, given: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Searches, prints the trials, and writes the best settings as best.toml.

    Args:
        source: the configuration.
        ranker: a name of the registry.
        tuner: how to search.
        num_trials: at most.
        given: settings to try beside them.

    Raises:
        ValueError: a wrong argument, or no trial succeeded.
    """
    config = source.load()
    prepare_devices(config.training)
    runner = TrialRunner(source, ranker, config.seed, preprocess_in_a_process)
    result, folder = run_search(runner, tuner, num_trials, given)
    result.print_table(Console(width=None if sys.stdout.isatty() else _COLUMNS_OF_A_FILE))
    logging.info("tune: the best settings are in %s", folder / "best.toml")


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_lift.tune",
        description="Searches a ranker's settings by LogLoss on validation, or by NDCG@10 where slates are ranked.",
    )
    add_config_flags(parser)
    parser.add_argument(
        "--ranker", default=OWN, choices=tuple(RANKERS), metavar="NAME", help="%(choices)s; default: %(default)s"
    )
    parser.add_argument("--tuner", default=TUNERS[0], choices=TUNERS, help="default: %(default)s")
    parser.add_argument(
        "--trials", type=int, default=20, help="at most, beside the defaults' own; default: %(default)s"
    )
    parser.add_argument(
        "--try",
        dest="given",
        action="append",
        default=[],
        metavar="'KEY=VALUE ...'",
        help="settings to try as a trial of their own, separated by spaces; repeatable",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow times its own checkpoints there
    try:
        given = [parse_assignments(text.split()) for text in flags.given]
        if {} in given:
            raise ValueError("--try must name settings, as in --try 'num_leaves=63 l2=1.0'. Received: none.")
        run(ConfigSource(Path(flags.config), tuple(flags.set)), flags.ranker, flags.tuner, flags.trials, given)
    except ValueError as error:
        sys.exit(f"tune: {error}")


if __name__ == "__main__":
    main()
