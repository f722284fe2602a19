"""The flags that every command with a configuration shares."""

import argparse


def add_config_flags(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds `--config` and `--set`.

    Args:
        parser: the command's parser.
        default: configuration to read when none is named; None: one must be.
    """
    text = "TOML file, such as configs/complete_journey.toml" if default is None else "TOML file; default: %(default)s"
    parser.add_argument("--config", required=default is None, default=default, help=text)
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one value; repeatable"
    )
