from __future__ import annotations

import json
import subprocess
import sys

import pytest

from serving.answers import Explanation, RankedItem
from serving.client_command import parse_args, parse_time, run
from serving.client_tables import format_time, print_tables

SLATE = ["--model_name", "tiny", "--user", "u1", "--items", "i2, i9", "--time", "1970-01-01T00:16:40", "--context"]


def test_rank_as_a_table(target, capsys):
    assert run(parse_args(["rank", "--server", target, *SLATE, "store=s"])) == 0
    lines = capsys.readouterr().out.splitlines()
    (best,) = [number for number, line in enumerate(lines) if "i9" in line and "0.9000" in line]
    (worst,) = [number for number, line in enumerate(lines) if "i2" in line and "0.2000" in line]
    assert best < worst


def test_rank_as_json_in_a_process_of_its_own(target):
    command = [sys.executable, "-m", "serving.client", "rank", "--server", target, *SLATE, "store=s", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    ranked = json.loads(finished.stdout)
    assert [row["item"] for row in ranked] == ["i9", "i2"]
    assert ranked[0]["probability"] == pytest.approx(0.9)


def test_explain(target, capsys):
    assert run(parse_args(["explain", "--server", target, *SLATE, "store=s"])) == 0
    table = capsys.readouterr().out
    assert "i9: probability 0.9000" in table
    assert "u1-twin" in table and "i9-next" in table

    assert run(parse_args(["explain", "--server", target, *SLATE, "store=s", "--json"])) == 0
    explanations = json.loads(capsys.readouterr().out)
    (neighbour,) = explanations[0]["neighbours"]
    assert neighbour == {
        "user": "u1-twin",
        "item": "i9",
        "time": 940,
        "score": 2.5,
        "attention": 1.0,
        "next_items": ["i9-next"],
    }


def test_status_and_metadata(target, capsys):
    connection = ["--server", target, "--model_name", "tiny"]
    assert run(parse_args(["status", *connection])) == 0
    assert "AVAILABLE" in capsys.readouterr().out
    assert run(parse_args(["status", *connection, "--json"])) == 0
    assert json.loads(capsys.readouterr().out) == [{"version": 3, "state": "AVAILABLE", "error": ""}]
    assert run(parse_args(["metadata", *connection])) == 0
    table = capsys.readouterr().out
    assert "tiny version 3" in table and "rank_known_user" in table and "[?, ?]" in table
    assert run(parse_args(["metadata", *connection, "--json"])) == 0
    signatures = json.loads(capsys.readouterr().out)["signatures"]
    assert signatures["count"]["inputs"]["steps"] == {"dtype": "int64", "shape": [1]}


def test_errors_are_one_line_and_exit_code_1(target, capsys):
    assert run(parse_args(["rank", "--server", target, *SLATE, "shop=s"])) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("serving.client: ") and "Please add ['store'] and remove ['shop']." in line


def test_no_server_is_one_line_in_a_process_of_its_own():
    command = [sys.executable, "-m", "serving.client", "status", "--model_name", "tiny", "--server", "127.0.0.1:1"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert "127.0.0.1:1" in line
    assert "python -m serving.local --model_base_path DIR --model_name tiny" in line


def test_help_needs_neither_grpc_nor_tensorflow():
    program = (
        "import sys\n"
        "from serving.client_command import parse_args\n"
        "try: parse_args(['rank', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpc', 'tensorflow', 'tensorflow_serving'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "--items A,B,C" in finished.stdout
    assert finished.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--items", "a,,b"], "items must be ids with a comma between them. Received: 'a,,b'"),
        (["--items", "a", "--time", "noon"], "must be epoch seconds or ISO 8601. Received: 'noon'"),
        (["--items", "a", "--context", "store"], "context must be field=value. Received: 'store'"),
    ],
)
def test_wrong_flags(flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(["rank", "--model_name", "tiny", "--user", "u1", *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["1714557600", "2024-05-01T10:00:00Z", "2024-05-01T10:00:00", "2024-05-01T12:00:00+02:00"]
)
def test_times(text):
    assert parse_time(text) == 1714557600


def test_context_flag_takes_several_fields():
    flags = parse_args(
        ["rank", "--model_name", "m", "--user", "u", "--items", "a", "--context", "a=1", "b=x=y", "--context", "c="]
    )
    assert flags.context == [("a", "1"), ("b", "x=y"), ("c", "")]


def test_ids_are_not_read_as_markup(capsys):
    print_tables([RankedItem("[red]7[/red]", 0.5)])
    assert "[red]7[/red]" in capsys.readouterr().out
    print_tables([Explanation("[b]", 0.5, ())])
    assert "[b]: probability 0.5000, no neighbours" in capsys.readouterr().out


def test_times_that_no_calendar_holds_are_numbers():
    assert format_time(0) == "1970-01-01 00:00:00"
    assert format_time(1 << 62) == str(1 << 62)
