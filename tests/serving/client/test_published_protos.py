"""The published protos without TensorFlow, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Messages built by either side are read by the other, inside the messages of tensorflow_serving too.
ROUND_TRIP = """
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2
assert published_protos.tensor_pb2.TensorProto is tensor_pb2.TensorProto
assert published_protos.predict_pb2.PredictRequest is predict_pb2.PredictRequest
ours = published_protos.predict_pb2.PredictRequest()
ours.inputs["user"].CopyFrom(encode_strings(["zoë"]))
ours.inputs["time"].CopyFrom(tf.make_tensor_proto([5], tf.int64))
theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
assert theirs == ours
assert tf.make_ndarray(theirs.inputs["user"]).tolist() == ["zoë".encode()]
assert decode_lists(theirs.inputs["time"]) == [5]
example = published_protos.example_pb2.Example()
example.features.feature["item"].bytes_list.value.append(b"i7")
spec = {"item": tf.io.FixedLenFeature([], tf.string)}
assert tf.io.parse_single_example(example.SerializeToString(), spec)["item"].numpy() == b"i7"
double = tf.function(lambda x: 2 * x).get_concrete_function(tf.TensorSpec([None], tf.int64))
assert double(tf.constant([4], tf.int64)).numpy().tolist() == [8]
"""

IMPORT_OURS = """
import sys
from serving import published_protos
from serving.tensor_lists import decode_lists, encode_strings
"""


def run_program(program: str) -> str:
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    "imports",
    [
        IMPORT_OURS + "import tensorflow as tf",
        "import tensorflow as tf" + IMPORT_OURS,
        IMPORT_OURS + "import serving.client\nimport tensorflow as tf",
    ],
    ids=["ours first", "tensorflow first", "client first"],
)
def test_tensorflow_works_beside_ours_in_either_order(imports):
    run_program(f"{imports}\n{ROUND_TRIP}")


def test_client_loads_no_tensorflow_and_no_numpy():
    found = run_program(
        "import sys\nimport serving.client, serving.client_command, serving.client_flags\n"
        "print(sorted({'tensorflow', 'numpy', 'rich'} & {name.split('.')[0] for name in sys.modules}))\n"
        "print([line for line in open('/proc/self/maps') if 'tensorflow' in line] if sys.platform == 'linux' else [])"
    )
    assert found.splitlines() == ["[]", "[]"]


def test_missing_tensorflow_is_said_plainly():
    program = (
        "import sys\nsys.path = [path for path in sys.path if 'site-packages' not in path]\n"
        "try: import serving.published_protos\nexcept ModuleNotFoundError as error: print(error.name)\n"
    )
    assert run_program(program).strip() == "tensorflow"
