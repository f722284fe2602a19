"""The warm-up requests: one for every signature and slate size, each of which the exported model can answer."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from export.ranking_module import RankingModule, served_datastore
from export.signatures import build_signatures
from export.warmup import WARMUP_FILE, write_warmup
from tf_lift.data.dataset_files import open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor


def test_every_signature_is_warmed_up_with_every_slate_size(tiny: Any, tmp_path: Path) -> None:
    workspace = tiny.trained()
    dataset = open_dataset(workspace)
    write_warmup(dataset, tmp_path, "tiny")
    records = tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    predictor = read_predictor(workspace, dataset, served_datastore(dataset, read_datastore(workspace, dataset)), spec)
    signatures = build_signatures(RankingModule(dataset, predictor, spec, tmp_path))
    sizes: dict[str, list[int]] = {name: [] for name in signatures}
    for log in logs:
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        assert request.model_spec.name == "tiny"
        name = request.model_spec.signature_name
        if kind == "predict_log":
            answer = signatures[name](**{key: tf.make_ndarray(value) for key, value in request.inputs.items()})
            sizes[name].append(answer["probabilities"].shape[1])
        else:
            examples = [example.SerializeToString() for example in request.input.example_list.examples]
            answer = signatures[name](inputs=tf.constant(examples))
            sizes[name].append(len(examples))
        assert all(np.isfinite(value).all() for value in answer.values() if value.dtype == tf.float32)
    slates = list(workspace.config.export.warmup_slates)
    assert sizes.pop("serving_default") == [1] and sizes.pop("classify") == sizes.pop("regress") == [10]
    assert sizes == {"rank": slates, "rank_known_user": slates, "explain": slates}
