"""The command against a stub of a model server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from serving.answers import Explanation, RankedItem
from serving.client_command import run
from serving.client_flags import parse_args, parse_time
from serving.client_tables import format_time, print_tables

ROOT = Path(__file__).parents[3]
SLATE = ["--model_name", "stub", "--user", "u1", "--items", "i2, i9", "--time", "1970-01-01T00:16:40"]
HISTORY = ["--history_items", "i2,i3", "--history_behaviours", "1,0", "--history_times", "900,1970-01-01T00:15:01Z"]
MAX_START_SECONDS = 0.5


def start(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.client", *args]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def run_json(capsys, *args: str):
    assert run(parse_args([*args, "--json"])) == 0
    return json.loads(capsys.readouterr().out)


def test_rank_as_a_table(target, capsys):
    assert run(parse_args(["rank", "--server", target, *SLATE])) == 0
    lines = capsys.readouterr().out.splitlines()
    (best,) = [number for number, line in enumerate(lines) if "i9" in line and "0.9000" in line]
    (worst,) = [number for number, line in enumerate(lines) if "i2" in line and "0.2000" in line]
    assert best < worst


def test_rank_as_json_in_a_process_of_its_own(target):
    finished = start("rank", "--server", target, *SLATE, "--json")
    assert (finished.returncode, finished.stderr) == (0, "")
    ranked = json.loads(finished.stdout)
    assert [row["item"] for row in ranked] == ["i9", "i2"]
    assert ranked[0]["probability"] == pytest.approx(0.9)


def test_rank_with_a_history_in_flags(target, stub, capsys):
    flags = [*SLATE, *HISTORY, "--user_attributes", "age=25", "--context", "store=s"]
    assert run_json(capsys, "rank", "--server", target, *flags)[0] == {"item": "i2", "probability": 1.0}
    assert stub.inputs["history_behaviours"].tolist() == [[b"1", b"0"]]
    assert stub.inputs["history_times"].tolist() == [[900, 901]]
    assert (stub.inputs["age"].tolist(), stub.inputs["store"].tolist()) == ([b"25"], [b"s"])


def test_rank_with_a_history_in_a_file(target, stub, capsys, tmp_path, monkeypatch):
    rows = [
        {"item": "i3", "behaviour": 0, "time": "1970-01-01T00:15:00Z"},
        {"item": "i2", "behaviour": "1", "time": 901, "context": {"store": 7}},
    ]
    (tmp_path / "history.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = ["rank", "--server", target, *SLATE, "--history"]
    assert run_json(capsys, *flags, str(tmp_path / "history.json"))[0]["item"] == "i2"
    assert stub.inputs["history_times"].tolist() == [[900, 901]]
    assert stub.inputs["history_store"].tolist() == [[b"", b"7"]]
    stub.inputs.clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(rows).encode())))
    assert run_json(capsys, *flags, "-")[0]["item"] == "i2"
    assert stub.inputs["history_behaviours"].tolist() == [[b"0", b"1"]]
    (tmp_path / "none.json").write_text("[]", encoding="utf-8")
    assert run_json(capsys, *flags, str(tmp_path / "none.json"))[0]["item"] == "i9"
    assert stub.inputs["history_items"].tolist() == [[b""]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b"{}", "no list. Put [ and ] around it"),
        (b'[{"item": "a", "time": 5}]', 'Received: {"item": "a", "time": 5} in'),
        (b'[{"item": "a", "behaviour": "1", "time": 5, "stars": 2}]', '"stars": 2} in'),
        (b'[{"item": "a", "behaviour": true, "time": 5}]', "a string or a whole number. Received: true"),
        (b'[{"item": "a", "behaviour": "1", "time": "noon"}]', "epoch seconds or ISO 8601. Received: 'noon'"),
        (b'[{"item": "", "behaviour": "1", "time": 5}]', "must have an item"),
        (b'[{"item": "a", "behaviour": "1", "time": 5, "context": []}]', "context must be an object"),
    ],
)
def test_history_files_that_are_none(content, message, capsys, tmp_path):
    path = tmp_path / "history.json"
    path.write_bytes(content)
    assert run(parse_args(["rank", *SLATE, "--history", str(path)])) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("serving.client: ") and message in line


def test_explain(target, capsys):
    assert run(parse_args(["explain", "--server", target, *SLATE])) == 0
    table = capsys.readouterr().out
    assert "i9: probability 0.9000" in table
    assert "u1-twin" in table and "i5-next" in table
    (neighbour,) = run_json(capsys, "explain", "--server", target, *SLATE)[0]["neighbours"]
    assert neighbour == {
        "user": "u1-twin",
        "item": "i9",
        "time": 940,
        "score": 2.5,
        "attention": 1.0,
        "next_items": ["i5-next"],
    }
    assert "because" not in table


def test_reasons_are_shown_where_the_model_has_them(target, stub, capsys):
    stub.has_reasons = True
    assert run(parse_args(["explain", "--server", target, *SLATE])) == 0
    assert "because of x: 41 of the 1,212 times that somebody had it, this followed" in capsys.readouterr().out
    (reason,) = run_json(capsys, "explain", "--server", target, *SLATE)[0]["reasons"]
    assert reason == {"item": "x", "went_on": 41, "times": 1212}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_bytes_that_are_no_text_are_shown_as_such(target, stub, encoding, form):
    stub.next_item = b"\xff7"
    finished = start("explain", "--server", target, *SLATE, *form, PYTHONIOENCODING=encoding)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert ("\ufffd7" if encoding == "utf-8" else "\\ufffd7") in finished.stdout


def test_answers_that_are_no_message_are_one_line():
    """As where a server answers with a string that is no UTF-8, or is another server."""
    status = grpc.method_handlers_generic_handler(
        "tensorflow.serving.ModelService",
        {"GetModelStatus": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x0a\x04\x1a\x02\x12\xff")},
    )
    server = grpc.server(ThreadPoolExecutor(1), handlers=[status])
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        finished = start("status", "--model_name", "stub", "--server", f"localhost:{port}")
    finally:
        server.stop(grace=None).wait()
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert "answered INTERNAL" in line


def test_classify(target, capsys):
    pairs = run_json(capsys, "classify", "--server", target, *SLATE)
    assert pairs == [
        {"user": "u1", "item": "i2", "probability": pytest.approx(0.2)},
        {"user": "u1", "item": "i9", "probability": pytest.approx(0.9)},
    ]
    assert run(parse_args(["classify", "--server", target, *SLATE, "--context", "store=closed"])) == 0
    assert capsys.readouterr().out.count("0.0000") == 2


def test_status_and_metadata(target, capsys):
    connection = ["--server", target, "--model_name", "stub"]
    assert run(parse_args(["status", *connection])) == 0
    table = capsys.readouterr().out
    assert "AVAILABLE" in table and "out of memory" in table
    assert run_json(capsys, "status", *connection)[0] == {"version": 3, "state": "AVAILABLE", "error": ""}
    assert run(parse_args(["metadata", *connection])) == 0
    table = capsys.readouterr().out
    assert "stub version 3" in table and "rank_known_user" in table and "[?, ?]" in table
    signatures = run_json(capsys, "metadata", *connection)["signatures"]
    assert signatures["rank"]["inputs"]["age"] == {"dtype": "string", "shape": [-1]}


def test_health_is_an_exit_code_too(target, capsys):
    connection = ["--server", target, "--model_name", "stub"]
    assert run_json(capsys, "health", *connection) == {"service": "", "state": "SERVING"}
    assert run(parse_args(["health", *connection, "--service", "draining"])) == 1
    assert "NOT_SERVING" in capsys.readouterr().out


def test_errors_are_one_line_and_exit_code_1(target, capsys):
    assert run(parse_args(["rank", "--server", target, *SLATE, "--context", "shop=s"])) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("serving.client: ") and "['store']. Received: ['shop']" in line


@pytest.mark.parametrize("tls", [[], ["--tls"]])
def test_no_server_is_one_line_in_a_process_of_its_own(tls):
    finished = start("status", "--model_name", "stub", "--server", "127.0.0.1:1", *tls)
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert "127.0.0.1:1" in line
    assert "python -m serving.local --model_base_path DIR --model_name stub" in line


def test_tls_flags_reach_the_connection(target, capsys, tmp_path):
    connection = ["--server", target, "--model_name", "stub", "--timeout_seconds", "2"]
    assert run(parse_args(["status", *connection, "--tls"])) == 1  # The server has no TLS.
    missing = str(tmp_path / "none.pem")
    for flags in (["--tls_roots", missing], ["--tls_client_key", missing, "--tls_client_certificate", missing]):
        capsys.readouterr()
        assert run(parse_args(["status", *connection, *flags])) == 1
        assert "must be readable. Received: " + missing in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="reads the times of child processes")
def test_starts_fast(target):
    """Of three starts the fastest counts, in seconds of this process's children on the processor."""

    def measure(*args: str) -> float:
        before = os.times()
        assert start(*args).returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    for command in (["--help"], ["rank", "--server", target, *SLATE]):
        assert min(measure(*command) for _ in range(3)) < MAX_START_SECONDS


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--items", "a,,b"], "items must be ids with a comma between them. Received: 'a,,b'"),
        (["--items", "a", "--time", "noon"], "must be epoch seconds or ISO 8601. Received: 'noon'"),
        (["--items", "a", "--context", "store"], "a field must be field=value. Received: 'store'"),
        (["--items", "a", "--history_items", "a"], "must be lists of one length"),
        (["--items", "a", *HISTORY, "--history_times", "5"], "must be lists of one length"),
        (["--items", "a", *HISTORY, "--history", "-"], "--history cannot be with --history_items"),
        (["--items", "a", "--tls_client_key", "k"], "--tls_client_certificate need each other"),
    ],
)
def test_wrong_flags(flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(["rank", "--model_name", "stub", "--user", "u1", *flags])
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
