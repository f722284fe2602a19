"""TensorFlow Serving's published protocol buffers and gRPC stubs, imported without TensorFlow itself.

These modules import `tensorflow.core...`, plain protocol buffers too, but importing their parent package `tensorflow`
loads its shared libraries, which takes seconds. So an empty package with TensorFlow's path stands in its place while
they are imported, and nothing of it stays behind: a later `import tensorflow` loads all of it, and finds the same
message classes, since protobuf has one class a message type. Where TensorFlow is loaded already, it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def _empty_tensorflow() -> Iterator[None]:
    spec = None if "tensorflow" in sys.modules else find_spec("tensorflow")  # Finds a top-level package, loads nothing.
    if spec is None:  # It is loaded, or not installed: the imports below then say so.
        yield
        return
    package = ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "tensorflow"]:
            del sys.modules[name]


with _empty_tensorflow():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        input_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )

__all__ = [
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "tensor_shape_pb2",
    "types_pb2",
]
