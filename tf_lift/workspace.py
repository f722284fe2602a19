"""Where every artefact lies, and the manifests that tell a whole one from a half-written or a stale one."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tf_lift.config import Config

MANIFEST_NAME = "manifest.json"
LOG_FILES = ("interactions-*", "windows.tfrecord", "users.npy", "items.npy", "vocabulary/*")

_MAX_WAIT_SECONDS = 6 * 3600  # encoding a billion rows on worker 0 may take hours

_DATASET_SECTIONS = (
    "source",
    "fields",
    "split",
    "behaviour",
    "negatives",
    "retrieval",
    "pipeline",
    "data_seed",
    "transitions",
)
_STAGE_SECTIONS = {
    "dataset": _DATASET_SECTIONS,
    "pretrain": ("encoder", "pretraining", "seed", "fields", "split", "behaviour", "negatives", "context_length"),
    "encode": (),
    "fit": ("encoder", "predictor", "training", "seed", "situation_features"),
    "evaluate": (),
    "export": ("export",),
}
_LOG = "log"  # the part of a data set that the encoder reads: no neighbours, tables or slates
_STAGE_INPUTS = {
    "dataset": (),
    "pretrain": (_LOG,),
    "encode": (_LOG, "pretrain"),
    "fit": ("dataset", "encode"),
    "evaluate": ("dataset", "fit"),
    "export": ("dataset", "fit"),
}


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The folder of one configuration.

    Attributes:
        config: the configuration.
    """

    config: Config

    @property
    def root(self) -> Path:
        """`<workspace>/<name>`."""
        return Path(self.config.workspace).expanduser() / self.config.name

    @property
    def dataset_dir(self) -> Path:
        """What preprocessing writes."""
        return self.root / "dataset"

    @property
    def run_dir(self) -> Path:
        """What training writes."""
        return self.root / self.config.run

    @property
    def models_dir(self) -> Path:
        """The served model's base path; its folders are versions."""
        return self.root / "models" / self.config.name

    def stage_dir(self, stage: str) -> Path:
        """Folder of a stage: `dataset`, or one of run/'s `pretrain`, `encode`, `fit` and `evaluate`."""
        return self.dataset_dir if stage == "dataset" else self.run_dir / stage

    def fingerprint(self, stage: str) -> str:
        """Hash of the sections that a stage reads, and of what its inputs' manifests say.

        Raises:
            ValueError: an input is missing or stale.
        """
        inputs = [json.dumps(self._describe_input(name), sort_keys=True) for name in _STAGE_INPUTS[stage]]
        own = self.config.section_hash(*_STAGE_SECTIONS[stage])
        return hashlib.sha256("-".join([own, *inputs]).encode()).hexdigest()[:16]

    def _describe_input(self, name: str) -> dict[str, Any]:
        """What a stage's fingerprint has of an input: its manifest, of the log the content and the split's times."""
        if name != _LOG:
            return self.check_fresh(name)
        manifest = self.check_fresh("dataset")
        # a data set of an earlier version does not tell its log apart
        content = manifest.get("log_content", manifest["content"])
        return {"content": content, "boundaries": manifest.get("boundaries")}

    def is_fresh(self, stage: str) -> bool:
        """Whether a stage's artefact is there, whole, and made from the present configuration and inputs."""
        try:
            self.check_fresh(stage)
        except ValueError:
            return False
        return True

    def check_fresh(self, stage: str) -> dict[str, Any]:
        """The manifest of a stage that another stage needs.

        Raises:
            ValueError: the artefact is not there, or was made with another configuration.
        """
        manifest = self.read_manifest(stage)
        command = "beam.preprocess" if stage == "dataset" else f"tf_lift.train --stages {stage}"
        if manifest is None:
            raise ValueError(
                f"The artefact of stage {stage!r} must be there. Received: no manifest in {self.stage_dir(stage)}. "
                f"Run `python -m {command}` with this configuration first."
            )
        if manifest["fingerprint"] != self.fingerprint(stage):
            raise ValueError(
                f"The artefact of stage {stage!r} is stale: {self.stage_dir(stage)} was made with another configuration or other "
                f"inputs. Received: fingerprint {manifest['fingerprint']}, now {self.fingerprint(stage)}. "
                f"Run `python -m {command}` with this configuration again."
            )
        return manifest

    def read_manifest(self, stage: str) -> dict[str, Any] | None:
        """The manifest of a stage, or None."""
        path = self.stage_dir(stage) / MANIFEST_NAME
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    @contextlib.contextmanager
    def writing(self, stage: str, manifest: dict[str, Any]) -> Iterator[Path]:
        """A folder to write a stage's artefact in; it takes the stage's place, manifest and all, when the block ends well.

        Args:
            stage: the stage.
            manifest: filled by the block; `stage`, `fingerprint` and a hash of the `content`, of a data set one of its log as well,
                are added, so that what depends on this artefact is stale when it was made again with other content.

        Raises:
            ValueError: an input is missing or stale when the block begins.
        """
        final, fingerprint = self.stage_dir(stage), self.fingerprint(stage)
        aside, replaced = (final.with_name(final.name + suffix) for suffix in (".partial", ".replaced"))
        for folder in (aside, replaced):
            shutil.rmtree(folder, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        manifest["content"] = hash_files(aside)
        if stage == "dataset":
            manifest["log_content"] = hash_files(aside, LOG_FILES)
        write_json(aside / MANIFEST_NAME, {"stage": stage, "fingerprint": fingerprint, **manifest})
        if final.exists():  # renamed first: a folder that a kill left half-removed would still have its manifest
            final.rename(replaced)
        aside.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)

    @contextlib.contextmanager
    def training(self, stage: str, worker: int = 0) -> Iterator["Progress"]:
        """A folder for checkpoints that outlives a killed run, and what to call to write the stage's artefact.

        Checkpoints of another configuration are removed first; all are when the artefact stands, but for the TensorBoard logs.

        Args:
            stage: the stage.
            worker: number of this process among the workers of a strategy; only worker 0 writes the artefact.
        """
        shared = self.run_dir / f"{stage}.progress"
        folder = shared if worker == 0 else shared.with_name(f"{shared.name}-{worker}")
        fingerprint = self.fingerprint(stage)
        stamp, own_stamp = shared / "fingerprint", folder / "fingerprint"
        is_resumable = stamp.is_file() and stamp.read_text(encoding="utf-8") == fingerprint
        if worker or not is_resumable:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            own_stamp.write_text(fingerprint, encoding="utf-8")

        @contextlib.contextmanager
        def finish(manifest: dict[str, Any]) -> Iterator[Path]:
            if worker:
                aside = folder / "artefact"
                aside.mkdir(exist_ok=True)
                yield aside
            else:
                with self.writing(stage, manifest) as aside:
                    yield aside
                    if (folder / "tensorboard").is_dir():
                        shutil.move(folder / "tensorboard", aside / "tensorboard")
            shutil.rmtree(folder, ignore_errors=True)

        yield Progress(folder, shared if is_resumable else None, finish)

    def wait_until_fresh(self, stage: str) -> None:
        """Waits for worker 0 of a strategy to write a stage's artefact.

        Raises:
            ValueError: it has not in `_MAX_WAIT_SECONDS`.
        """
        began = time.monotonic()
        while not self.is_fresh(stage):
            if time.monotonic() - began > _MAX_WAIT_SECONDS:
                raise ValueError(
                    f"Worker 0 must write stage {stage!r} within {_MAX_WAIT_SECONDS} s. Received: nothing fresh in "
                    f"{self.stage_dir(stage)}. See worker 0's log, and start all workers again."
                )
            time.sleep(1.0)


class Progress(NamedTuple):
    """Where a training stage keeps its checkpoints.

    Attributes:
        folder: where to write them.
        resume_from: the folder whose checkpoints all workers resume from; None: there is none of this configuration.
        finish: a context manager that gives the folder to write the stage's artefact in; takes its manifest.
    """

    folder: Path
    resume_from: Path | None
    finish: Callable[[dict[str, Any]], contextlib.AbstractContextManager[Path]]


def hash_files(folder: Path, patterns: Sequence[str] = ("**/*",)) -> str:
    """A hash of the names and contents of a folder's files, TensorBoard's (which hold the time of day) left out.

    Args:
        folder: the folder.
        patterns: globs below it, of which no file meets two.
    """
    digest = hashlib.blake2b(digest_size=16)
    found = (path for pattern in patterns for path in folder.glob(pattern))
    for path in sorted(path for path in found if path.is_file() and "tensorboard" not in path.parts):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return digest.hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON aside and renames it into place."""
    aside = path.with_name(path.name + ".partial")
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)
