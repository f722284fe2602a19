"""The SavedModel's signatures (DESIGN.md section 6): named entries with named inputs and outputs, batched in dimension 0."""

from typing import Any

import tensorflow as tf

from tf_lift.models.predictor import Prediction

from .ranking_module import RankingModule


def build_signatures(module: RankingModule) -> dict[str, Any]:
    """Concrete functions of all signatures.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `serving_default` | examples string [B] | probabilities float32 [B, C], mask bool [B, C] |
    | `rank_known_user` | user string [B], candidates string [B, C], time int64 [B] | the same |
    | `explain` | the same | also what `RankingModule.describe_neighbours` returns |

    A candidate "" is padding. The latter two also take each context field, string [B].
    """
    request = {
        "user": tf.TensorSpec([None], tf.string, name="user"),
        "candidates": tf.TensorSpec([None, None], tf.string, name="candidates"),
        "time": tf.TensorSpec([None], tf.int64, name="time"),
        **{name: tf.TensorSpec([None], tf.string, name=name) for name in module.context_names},
    }

    @tf.function(autograph=False)
    def rank_known_user(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        ranked = _rank(module, inputs)
        return _probabilities(ranked["slate"], ranked["prediction"])

    @tf.function(autograph=False)
    def explain(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        ranked = _rank(module, inputs)
        answers = _probabilities(ranked["slate"], ranked["prediction"])
        return answers | module.describe_neighbours(ranked["slate"], ranked["prediction"])

    @tf.function(autograph=False)
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        ranked = module.rank_examples(examples)
        return _probabilities(ranked["slate"], ranked["prediction"])

    return {
        "rank_known_user": rank_known_user.get_concrete_function(**request),
        "explain": explain.get_concrete_function(**request),
        "serving_default": serving_default.get_concrete_function(tf.TensorSpec([None], tf.string, name="examples")),
    }


def _rank(module: RankingModule, inputs: dict[str, tf.Tensor]) -> dict[str, Any]:
    context = {name: inputs[name] for name in module.context_names}
    return module.rank(inputs["user"], inputs["candidates"], inputs["time"], context)


def _probabilities(slate: dict[str, tf.Tensor], prediction: Prediction) -> dict[str, tf.Tensor]:
    """Probabilities, 0 where a candidate is padding, and the mask of the others."""
    return {"probabilities": tf.where(slate["mask"], tf.sigmoid(prediction.logits), 0.0), "mask": slate["mask"]}
