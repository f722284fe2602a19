"""A model server for a laptop and for tests, with the gRPC API and the flags of TensorFlow Serving.

python -m serving.local --model_base_path workspace/complete_journey/models/complete_journey --model_name complete_journey
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import queue
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tensorflow_serving.config import model_server_config_pb2

from serving.model_versions import choose_versions
from serving.server_configs import build_model_config, read_metrics_path, read_model_configs, read_tls_config
from serving.server_options import ServerOptions
from serving.standby import StandbyLock

if TYPE_CHECKING:
    from serving.local_server import LocalServer

DEFAULT_PORT = 8500  # TensorFlow Serving's port for gRPC.
EXIT_CODE_CUT_OFF = 1
EXIT_CODE_WRONG_USE = 2
_LOOK_SECONDS = 1.0  # Between looks for a signal.
_RETRY_SECONDS = 5.0  # For the kernel to free the ports of a server that was killed; it takes milliseconds.
_DEFAULTS = ServerOptions()
logger = logging.getLogger("serving")

_DESCRIPTION = """\
Serve exported models over gRPC from this machine, with the API of TensorFlow Serving. It is for a laptop and for tests.
Production is TensorFlow Serving: see serving/tf_serving/. This server runs a model in Python's process, one request at a
time and core, and joins no requests into batches.

It answers Predict, Classify, Regress, MultiInference, GetModelMetadata, GetModelStatus, HandleReloadConfigRequest and
gRPC's health checks; looks for new versions, and switches to one when it is loaded and warmed up."""

_EPILOG = """\
example:
  python -m serving.local --model_base_path workspace/complete_journey/models/complete_journey --model_name complete_journey
  python -m serving.client status --model_name complete_journey      (in another terminal)

The same command with --standby_lock FILE, started twice, gives a server and a warm standby that takes over its ports when
the first has ended: at once after SIGKILL, after the last running request where it is stopped. Stop the standby first to
stop both. A standby has the files of flags as they were when it started, and no reload that the first was sent.

SIGTERM or Ctrl-C refuses new requests, lets running ones end, then exits with code 0; a standby exits at once. Exit code
1: a request, or the load of a version, ran longer than --drain_seconds; 2: wrong flags or files, no model, or a port is
taken."""


# Group -> flags: name, type, default or None, metavar and help.
_FLAGS: dict[str, list[tuple[str, type, object, str, str]]] = {
    "models: one by --model_base_path and --model_name, or several by a file": [
        ("model_base_path", str, None, "DIR", "folder of the model: DIR/1/saved_model.pb"),
        ("model_name", str, None, "NAME", "the model's name in requests"),
        ("model_config_file", str, None, "FILE", "ModelServerConfig: models, version policies, labels"),
        ("file_system_poll_wait_seconds", float, _DEFAULTS.poll_seconds, "S", "between looks for versions; 0 never"),
    ],
    "listening": [
        ("host", str, _DEFAULTS.host, "ADDRESS", "to listen on; 0.0.0.0 is every network, so use TLS"),
        ("port", int, DEFAULT_PORT, "PORT", "for gRPC, 0 for a free one"),
        ("ssl_config_file", str, None, "FILE", "SSLConfig: TLS, and clients' certificates if it asks for them"),
        ("rest_api_port", int, 0, "PORT", "for Prometheus metrics over HTTP, without TLS; 0 for none"),
        (
            "monitoring_config_file",
            str,
            None,
            "FILE",
            f"MonitoringConfig: path of the metrics, in place of {_DEFAULTS.metrics_path}",
        ),
        (
            "standby_lock",
            str,
            None,
            "FILE",
            "file to lock, on a local disk: the process that has the lock listens. Another one of the same command loads "
            "the models, stands by, and listens as soon as the first has ended, by SIGKILL too. Twice the memory",
        ),
    ],
    "limits": [
        ("max_concurrency", int, _DEFAULTS.max_concurrency, "N", "requests that run at the same time"),
        ("max_queue", int, _DEFAULTS.max_queue, "N", "requests that wait; more get RESOURCE_EXHAUSTED at once"),
        ("max_request_bytes", int, _DEFAULTS.max_request_bytes, "N", "size of a request"),
        ("max_input_values", int, _DEFAULTS.max_input_values, "N", "values of one input of a request"),
        ("max_batch_size", int, _DEFAULTS.max_batch_size, "N", "slates or examples of a request"),
        ("drain_seconds", float, _DEFAULTS.drain_seconds, "S", "for running requests to end when the server stops"),
        ("tensorflow_intra_op_parallelism", int, 0, "N", "threads of one operation; 0 lets TensorFlow choose"),
        ("tensorflow_inter_op_parallelism", int, 0, "N", "operations at the same time; 0 lets TensorFlow choose"),
    ],
}


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.local",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for title, flags in _FLAGS.items():
        group = parser.add_argument_group(title)
        for name, kind, default, metavar, text in flags:
            suffix = "" if default is None else " (default: %(default)s)"
            group.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text + suffix)
    return parser.parse_args(args)


def read_configs(flags: argparse.Namespace) -> list[model_server_config_pb2.ModelConfig]:
    """Returns the models that the flags name.

    Raises:
        ValueError: The flags name no model or name it twice, or a base path does not hold what the policy asks for.
    """
    if bool(flags.model_config_file) == bool(flags.model_base_path or flags.model_name):
        raise ValueError(
            "Name one model by --model_base_path and --model_name, or several by --model_config_file. "
            f"Received: {'both' if flags.model_config_file else 'neither'}. Pass one of the two."
        )
    if flags.model_config_file:
        configs = read_model_configs(flags.model_config_file)
    else:
        configs = [build_model_config(flags.model_name or "", flags.model_base_path or "")]
    for config in configs:
        choose_versions(config)
    return configs


def read_options(flags: argparse.Namespace) -> ServerOptions:
    """Returns the server's settings. Raises ValueError where a number is out of its range, or a file is wrong."""
    return ServerOptions(
        host=flags.host,
        port=flags.port,
        max_concurrency=flags.max_concurrency,
        max_queue=flags.max_queue,
        max_request_bytes=flags.max_request_bytes,
        max_input_values=flags.max_input_values,
        max_batch_size=flags.max_batch_size,
        drain_seconds=flags.drain_seconds,
        poll_seconds=flags.file_system_poll_wait_seconds,
        rest_api_port=flags.rest_api_port or None,
        metrics_path=(
            read_metrics_path(flags.monitoring_config_file) if flags.monitoring_config_file else _DEFAULTS.metrics_path
        ),
        tls=read_tls_config(flags.ssl_config_file) if flags.ssl_config_file else None,
    )


def open_standby_lock(flags: argparse.Namespace) -> StandbyLock | None:
    """Returns the lock that the flags name, not taken yet; None where they name none.

    Raises:
        ValueError: The lock's file cannot be opened, or the port is one that a standby could not take over.
    """
    if flags.standby_lock is None:
        return None
    if flags.port == 0:
        raise ValueError(
            "With --standby_lock, --port must be a fixed one, which the standby takes over. Received: 0, which takes a free one. "
            f"Choose a port, such as {DEFAULT_PORT}."
        )
    return StandbyLock(flags.standby_lock)


def run(flags: argparse.Namespace) -> int:
    """Serves, or stands by and then serves, until SIGTERM or SIGINT; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # Leaves out most of TensorFlow's notes on the processor.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    stopped: queue.SimpleQueue[None] = queue.SimpleQueue()  # a signal may put at any time; an Event could lock itself
    try:
        configs, options, lock = read_configs(flags), read_options(flags), open_standby_lock(flags)
        if lock is None or lock.try_acquire():
            server = _build_server(flags, configs, options).start()
            _on_signals(lambda: stopped.put(None))
        else:
            _on_signals(lambda: os._exit(0))  # Nobody is answered, so there is nothing to wait for.
            logger.info("Another process has %s: this one loads its models to stand by", flags.standby_lock)
            server = _build_server(flags, configs, options)
            server.load()
            print(f"Standing by for localhost:{options.port}", flush=True)
            lock.acquire()
            _on_signals(lambda: stopped.put(None))
            server.listen(_RETRY_SECONDS)
    except ValueError as error:
        print(f"serving.local: {error}", file=sys.stderr)
        return EXIT_CODE_WRONG_USE
    states = server.manager.list_states()  # A standby may have switched to a new version.
    served = ", ".join(f"{name} version {version}" for name, version, state in states if state == "AVAILABLE")
    print(f"Serving {served} at localhost:{server.port}", flush=True)
    _wait_for(stopped)
    if not server.stop():
        print(
            f"serving.local: requests or a load ran longer than {options.drain_seconds:g} s and were cut off",
            file=sys.stderr,
        )
        os._exit(EXIT_CODE_CUT_OFF)  # Python would wait for their threads.
    return 0


def _build_server(
    flags: argparse.Namespace, configs: Sequence[model_server_config_pb2.ModelConfig], options: ServerOptions
) -> LocalServer:
    # Imported here because TensorFlow takes seconds: --help and a wrong path must not wait for it.
    import tensorflow as tf

    from serving.local_server import LocalServer

    # What is imported stays: out of the garbage collector's sight, its full runs take 10 ms and not 100.
    gc.freeze()
    if flags.tensorflow_intra_op_parallelism:
        tf.config.threading.set_intra_op_parallelism_threads(flags.tensorflow_intra_op_parallelism)
    if flags.tensorflow_inter_op_parallelism:
        tf.config.threading.set_inter_op_parallelism_threads(flags.tensorflow_inter_op_parallelism)
    return LocalServer(configs, options)


def _wait_for(stopped: queue.SimpleQueue[None]) -> None:
    """Waits for a signal; looks anew each second, for one that came just before the wait began."""
    while True:
        with suppress(queue.Empty):
            return stopped.get(timeout=_LOOK_SECONDS)


def _on_signals(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


def main() -> None:
    """Runs the command line."""
    code = run(parse_args())
    sys.stdout.flush()
    sys.stderr.flush()
    # All is said and stopped. What Python, TensorFlow and gRPC do at their end takes time, and may hang.
    os._exit(code)


if __name__ == "__main__":
    main()
