"""Trains and evaluates: `python -m tf_lift.train --config configs/X.toml`."""

import argparse
import logging
import sys
from collections.abc import Sequence

from tf_lift import encode, evaluate, fit, pretrain
from tf_lift.config import Config, load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.strategy import prepare_devices, worker_index
from tf_lift.workspace import Workspace

STAGES = {"pretrain": pretrain.run, "encode": encode.run, "fit": fit.run, "evaluate": evaluate.run}
_DISTRIBUTED_STAGES = ("pretrain", "fit")  # the others are worker 0's alone


def run(config: Config, stages: Sequence[str] = tuple(STAGES)) -> None:
    """Runs stages in order; each is skipped while its artefact is fresh, and goes on where a killed run stopped.

    Args:
        config: the configuration.
        stages: some of STAGES.

    Raises:
        ValueError: an unknown stage, or one whose input is missing or stale.
    """
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"`--stages` must be among {', '.join(STAGES)}. Received: {', '.join(unknown)}.")
    prepare_devices(config.training)  # before the first stage that is not skipped, which may be one without a strategy
    workspace, worker = Workspace(config), worker_index(config.training)
    for stage, run_stage in STAGES.items():
        if stage not in stages:
            continue
        if worker == 0 or stage in _DISTRIBUTED_STAGES:
            run_stage(workspace)
        if worker:
            workspace.wait_until_fresh(stage)


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_lift.train",
        description="Pretrains the encoder, encodes the log, fits the predictor and evaluates it. Run `python -m beam.preprocess` first.",
    )
    add_config_flags(parser)
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated, from: %(default)s")
    return parser.parse_args(arguments)


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow times its own checkpoints there
    try:
        run(load_config(flags.config, flags.set), [stage.strip() for stage in flags.stages.split(",") if stage.strip()])
    except ValueError as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
