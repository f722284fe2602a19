"""Which versions of which models are in memory: loads, switches and unloads them while requests run."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.loaded_model import LoadedModel
from serving.model_versions import choose_versions
from serving.request_error import RequestError, invalid

State = get_model_status_pb2.ModelVersionStatus.State
LOADING, AVAILABLE, UNLOADING, END = State.LOADING, State.AVAILABLE, State.UNLOADING, State.END
_RELOAD_WAIT_SECONDS = 5.0  # For a change that runs already; a waiting reload holds a thread of the server.

logger = logging.getLogger("serving")


@dataclass
class ServedVersion:
    """One version of a model: its state, why it failed if it did, and how many requests use it now."""

    version: int
    path: Path
    state: int = LOADING
    error: str = ""
    fingerprint: tuple[tuple[str, int, int], ...] = ()
    model: LoadedModel | None = None
    num_uses: int = 0


class ModelManager:
    """Keeps in memory the versions that the model configs ask for, from `start` to `stop`.

    A new version is loaded and warmed up before the old one goes, and the old one goes when its last request has ended.
    Versions are unloaded only when all that their model's policy wants are available, so a version that cannot be loaded
    leaves the old ones serving.

    Args:
        configs: Name, base path, version policy and labels of every model.
        load: Loads and warms up one version, by model name, version and folder.
        poll_seconds: How often to look for new versions; 0 never.
    """

    def __init__(
        self,
        configs: Sequence[model_server_config_pb2.ModelConfig],
        load: Callable[[str, int, Path], LoadedModel],
        poll_seconds: float,
    ) -> None:
        self._configs = {config.name: config for config in configs}
        self._load = load
        self._poll_seconds = poll_seconds
        self._name_to_versions: dict[str, dict[int, ServedVersion]] = {}
        self._changed = threading.Condition()  # Guards the versions, their states and uses, and the configs.
        self._changing = threading.Lock()  # One change of the models at a time.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="poller", daemon=True)
        self._reported: list[str] = []

    def start(self) -> None:
        """Loads every version that is wanted, then looks for new ones in the background.

        Raises:
            ValueError: A version cannot be loaded, or a label names a version that is not served.
        """
        with self._changing:
            problems = self._load_wanted(self._configs) or self._find_wrong_labels(self._configs)
        if problems:
            raise ValueError(problems[0])
        if self._poll_seconds > 0:
            self._poller.start()

    def stop(self, timeout_seconds: float) -> bool:
        """Ends the polling and unloads every version; requests that run must have ended.

        Returns:
            Whether a load that had begun ended in time; if not, nothing is unloaded.
        """
        self._stopping.set()
        if self._poller.is_alive():
            self._poller.join(timeout_seconds)
            if self._poller.is_alive():
                return False
        self._loader.shutdown()
        with self._changed:
            self._name_to_versions.clear()
        gc.collect()  # The functions of a SavedModel refer to each other.
        return True

    def reload(self, configs: Sequence[model_server_config_pb2.ModelConfig]) -> None:
        """Serves these models in place of the present ones; where one of them cannot be served, nothing is switched.

        Raises:
            RequestError: ABORTED where another change runs, INVALID_ARGUMENT for a changed base path, or
                FAILED_PRECONDITION for what cannot be loaded and for labels of versions that are not served.
        """
        wanted = {config.name: config for config in configs}
        if not self._changing.acquire(timeout=_RELOAD_WAIT_SECONDS):
            raise RequestError(
                grpc.StatusCode.ABORTED,
                "Models are changed one after the other. Received: a reload while versions are loaded. Try it again.",
            )
        try:
            for name in sorted(set(wanted) & set(self._configs)):
                if wanted[name].base_path != self._configs[name].base_path:
                    raise invalid(
                        f"A served model keeps its base path. Received: {wanted[name].base_path} for `{name}` in "
                        f"{self._configs[name].base_path}. Serve it under another name."
                    )
            problems = self._load_wanted(wanted) or self._find_wrong_labels(wanted)
            if problems:
                self._unload_unwanted(self._configs)
                raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, problems[0])
            with self._changed:
                self._configs = wanted
            self._unload_unwanted(wanted)
        finally:
            self._changing.release()

    @contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[LoadedModel]:
        """Holds the version that a request asks for: the newest, a number or a label. It is not unloaded meanwhile.

        Raises:
            RequestError: INVALID_ARGUMENT without a name, NOT_FOUND for a model, version or label that is not served.
        """
        with self._changed:
            served = self._find(spec)
            served.num_uses += 1
            model = served.model
        try:
            if model is not None:  # Always: it is available.
                yield model
        finally:
            with self._changed:
                served.num_uses -= 1
                if served.state == UNLOADING:
                    self._changed.notify_all()

    def statuses(self, spec: model_pb2.ModelSpec) -> list[tuple[int, int, str]]:
        """Returns (version, state, error) of every version of a model, newest first, or of the one that is named.

        Raises:
            RequestError: As `use`, but versions in any state are found.
        """
        with self._changed:
            versions = self._versions_of(spec)
            number = self._named_version(spec)
            if number is not None and number not in versions:
                raise self._not_found(spec, f"version {number}", versions)
            chosen = versions if number is None else [number]
            return [
                (served.version, served.state, served.error)
                for served in (versions[version] for version in sorted(chosen, reverse=True))
            ]

    def list_states(self) -> list[tuple[str, int, str]]:
        """Returns (model name, version, name of the state) of every version."""
        with self._changed:
            return [
                (name, served.version, State.Name(served.state))
                for name, versions in self._name_to_versions.items()
                for served in versions.values()
            ]

    def _find(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        versions = self._versions_of(spec)
        available = {number: served for number, served in versions.items() if served.state == AVAILABLE}
        number = self._named_version(spec)
        if number is None and available:
            number = max(available)
        if number not in available:
            raise self._not_found(spec, "no version" if number is None else f"version {number}", available)
        return available[number]

    def _versions_of(self, spec: model_pb2.ModelSpec) -> dict[int, ServedVersion]:
        if not spec.name:
            raise invalid(
                "A request must name its model. Received: an empty model_spec.name. "
                f"Set it to one of {sorted(self._configs)}."
            )
        if spec.name not in self._name_to_versions:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND,
                f"This server serves the models {sorted(self._configs)}. Received: `{spec.name}`. "
                "Correct model_spec.name, or start a server for that model.",
            )
        return self._name_to_versions[spec.name]

    def _named_version(self, spec: model_pb2.ModelSpec) -> int | None:
        if spec.HasField("version_label"):
            config = self._configs.get(spec.name)
            labels = {} if config is None else dict(config.version_labels)
            if spec.version_label not in labels:
                raise RequestError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Model `{spec.name}` has the version labels {sorted(labels)}. Received: `{spec.version_label}`. "
                    "Correct it, or add it to the model's config.",
                )
            return labels[spec.version_label]
        return spec.version.value if spec.HasField("version") else None

    def _not_found(self, spec: model_pb2.ModelSpec, received: str, versions: dict[int, ServedVersion]) -> RequestError:
        return RequestError(
            grpc.StatusCode.NOT_FOUND,
            f"This server has the versions {sorted(versions)} of `{spec.name}`. Received: {received}. "
            "Ask for one of these, or for no version.",
        )

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            with self._changing:
                problems = self._load_wanted(self._configs)
                if problems != self._reported:
                    for problem in problems:
                        logger.error("%s", problem)
                    self._reported = problems
                self._unload_unwanted(self._configs)

    def _load_wanted(self, configs: dict[str, model_server_config_pb2.ModelConfig]) -> list[str]:
        """Loads what is wanted and not yet there; returns what went wrong."""
        problems = []
        for name, config in configs.items():
            try:
                wanted = choose_versions(config)
            except (ValueError, OSError) as error:
                problems.append(str(error))
                continue
            problems += [
                problem
                for version, path in wanted.items()
                if (problem := self._load_version(name, ServedVersion(version, path, fingerprint=_fingerprint(path))))
            ]
        return problems

    def _load_version(self, name: str, new: ServedVersion) -> str:
        """Loads a version that is not available yet; returns why it cannot be, or nothing.

        A version that failed is tried again when its files have changed.
        """
        with self._changed:
            versions = self._name_to_versions.setdefault(name, {})
            old = versions.get(new.version)
            if old is not None and (old.state == AVAILABLE or (old.error and old.fingerprint == new.fingerprint)):
                return old.error
            versions[new.version] = new
        # Whatever is wrong with a file, TensorFlow has an exception of some type for it: a future keeps any of them.
        future = self._loader.submit(self._load, name, new.version, new.path)
        error = future.exception()
        with self._changed:
            if error is None:
                new.model, new.state = future.result(), AVAILABLE
                logger.info("Model %s version %d is available", name, new.version)
            else:
                new.error, new.state = str(error) or type(error).__name__, END
        return new.error

    def _find_wrong_labels(self, configs: dict[str, model_server_config_pb2.ModelConfig]) -> list[str]:
        with self._changed:
            return [
                f"A version label must name a version that is served. Received: `{label}` for version {version} of "
                f"`{name}`. Correct the label, or add the version to the model's policy."
                for name, config in configs.items()
                for label, version in config.version_labels.items()
                if version not in self._name_to_versions[name]
                or self._name_to_versions[name][version].state != AVAILABLE
            ]

    def _unload_unwanted(self, configs: dict[str, model_server_config_pb2.ModelConfig]) -> None:
        for name in list(self._name_to_versions):
            with self._changed:
                versions = self._name_to_versions[name]
                available = {number for number, served in versions.items() if served.state == AVAILABLE}
            if name not in configs:
                for number in available:
                    self._unload(name, versions[number])
                with self._changed:
                    del self._name_to_versions[name]
                continue
            try:
                wanted = set(choose_versions(configs[name]))
            except (ValueError, OSError):
                continue  # What is served stays; the loading has reported it.
            if wanted <= available:
                for number in sorted(available - wanted):
                    self._unload(name, versions[number])

    def _unload(self, name: str, served: ServedVersion) -> None:
        with self._changed:
            served.state = UNLOADING
            self._changed.wait_for(lambda: served.num_uses == 0)
            served.model, served.state = None, END
        gc.collect()  # The functions of a SavedModel refer to each other.
        logger.info("Model %s version %d is unloaded", name, served.version)


def _fingerprint(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of every file under a folder; nothing where it vanishes meanwhile."""
    try:
        stats = [(str(file), file.stat()) for file in sorted(path.rglob("*"))]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
