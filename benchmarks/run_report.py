"""How a benchmark ends: a JSON, a plot beside it, and its tables on the terminal."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from tf_lift.workspace import write_json

_COLUMNS_OF_A_FILE = 170


def run_and_report(
    name: str,
    output: Path,
    run: Callable[[], dict[str, Any]],
    plot: Callable[[dict[str, Any], Path], None],
    print_report: Callable[[dict[str, Any], Console], None],
) -> dict[str, Any]:
    """Runs a benchmark, writes and shows what it measured, and returns it; a ValueError ends the program with its message.

    Args:
        name: of the benchmark, for the message.
        output: the JSON; the plot has the same name and ends in `.png`.
        run: measures; JSON values.
        plot: draws what was measured into a file.
        print_report: prints it.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        summary = run()
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, summary)
    plot(summary, output.with_suffix(".png"))
    print_report(summary, Console(width=None if sys.stdout.isatty() else _COLUMNS_OF_A_FILE))
    return summary
