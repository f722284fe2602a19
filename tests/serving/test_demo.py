"""`make demo`'s command on the tiny configuration: every stage, the server, and rankings over gRPC."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_ends_in_rankings_and_results(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.demo", "--config", "configs/tiny.toml", "--set", f"workspace={tmp_path}"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == 0, finished.stderr[-2000:]
    for words in ("Really chosen: ", "rank, history from the log (", "and a click a second ago (", "AUC", "stopped"):
        assert words in finished.stdout, words
