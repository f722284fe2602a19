"""One version of a SavedModel in memory: its signatures, warmed up."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.request_error import invalid
from serving.request_limits import RequestLimits
from serving.served_signature import ServedSignature

SAVED_MODEL_FILE = "saved_model.pb"
SERVE_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"


class LoadedModel:
    """A SavedModel and its signatures. It may be used from several threads.

    Args:
        name: The model's name in requests.
        version: The number of the version folder.
        path: The version folder, which holds a `saved_model.pb`.
        limits: How much one request may ask for.

    Raises:
        ValueError: The folder holds no SavedModel that TensorFlow can load for serving.
    """

    def __init__(self, name: str, version: int, path: Path, limits: RequestLimits) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.limits = limits
        self.signature_defs = read_signature_defs(path)
        try:
            self._saved_model = tf.saved_model.load(str(path), tags=[SERVE_TAG])
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(
                f"A version folder must hold a SavedModel that TensorFlow can load. Received: {path}: {error}. "
                "Export the model again."
            ) from error
        self._signatures = {
            signature_name: ServedSignature(signature_name, self.signature_defs[signature_name], function, limits)
            for signature_name, function in self._saved_model.signatures.items()
        }

    def signature(self, name: str) -> ServedSignature:
        """Returns a signature, `serving_default` where the name is empty. Raises RequestError for an unknown one."""
        name = name or DEFAULT_SIGNATURE
        if name not in self._signatures:
            raise invalid(
                f"Model `{self.name}` has the signatures {sorted(self._signatures)}. Received: `{name}`. "
                "Correct model_spec.signature_name."
            )
        return self._signatures[name]


def read_signature_defs(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    """Reads the SignatureDefs of a SavedModel's serving graph as they were written, TensorFlow's own included.

    Raises:
        ValueError: The file cannot be parsed, or it has no graph for serving.
    """
    saved_model = saved_model_pb2.SavedModel()
    file = path / SAVED_MODEL_FILE
    try:
        saved_model.ParseFromString(file.read_bytes())
    except (DecodeError, OSError) as error:
        raise ValueError(
            f"{SAVED_MODEL_FILE} must be a SavedModel protocol buffer. Received: {file}: {error}. "
            "Export the model again."
        ) from error
    for graph in saved_model.meta_graphs:
        if SERVE_TAG in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    tags = [list(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    raise ValueError(
        f"A SavedModel must have a graph with the tag `{SERVE_TAG}`. Received: {file} with the tags {tags}. "
        "Export it with tf.saved_model.save."
    )
