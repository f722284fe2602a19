"""The SavedModel's signatures (DESIGN.md section 6): named entries with named inputs and outputs, batched in dimension 0."""

from typing import Any

import tensorflow as tf

from tf_lift.schema import HISTORY_PREFIX

from .ranking_module import Ranked, RankingModule
from .request_examples import request_example_spec

CLASSES = ("negative", "positive")
# What TensorFlow Serving's Classify and Regress look for, in place of `predict`.
METHOD_NAMES = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}


def build_signatures(module: RankingModule) -> dict[str, Any]:
    """Concrete functions of all signatures.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `rank_known_user` | user string [B], candidates string [B, C], time int64 [B] | probabilities float32 [B, C], mask bool [B, C] |
    | `rank` | the same; history_items, history_behaviours string, history_times int64 [B, H]; the user's attributes string [B] | the same |
    | `explain` | as `rank_known_user` | also what `RankingModule`'s `describe_neighbours` and `describe_reasons` return |
    | `serving_default` | examples string [B], as Beam writes them | probabilities, mask |
    | `classify` | inputs string [B], tf.Examples of `request_example_spec` | classes string [B, 2], scores float32 [B, 2] |
    | `regress` | inputs string [B] | outputs float32 [B] |

    A candidate or an item of a history that is "" is padding. The first three also take each context field, string [B], and `rank` takes
    it for the history, `history_<name>` string [B, H].
    """
    request, history = _request_inputs(module), _history_inputs(module)

    @tf.function(autograph=False)
    def rank_known_user(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return _answer(module.rank_known_user(inputs))

    @tf.function(autograph=False)
    def rank(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return _answer(module.rank(inputs))

    @tf.function(autograph=False)
    def explain(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        ranked = module.rank_known_user(inputs)
        return _answer(ranked) | module.describe_neighbours(ranked) | module.describe_reasons(ranked)

    @tf.function(autograph=False)
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return _answer(module.rank_examples(examples))

    @tf.function(autograph=False)
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        positive = _rank_pairs(module, inputs)
        classes = tf.tile(tf.constant([CLASSES]), [tf.size(positive), 1])
        return {"classes": classes, "scores": tf.stack([1.0 - positive, positive], axis=1)}

    @tf.function(autograph=False)
    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": _rank_pairs(module, inputs)}

    return {
        "rank_known_user": rank_known_user.get_concrete_function(**request),
        "rank": rank.get_concrete_function(**request, **history),
        "explain": explain.get_concrete_function(**request),
        "serving_default": serving_default.get_concrete_function(_input("examples", [None])),
        "classify": classify.get_concrete_function(_input("inputs", [None])),
        "regress": regress.get_concrete_function(_input("inputs", [None])),
    }


def set_method_names(folder: str) -> None:
    """Tells TensorFlow Serving which signatures of a SavedModel are for Classify and for Regress."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(folder)
    for name, method_name in METHOD_NAMES.items():
        updater.replace_method_name(signature_key=name, method_name=method_name, tags="serve")
    updater.save(new_export_dir=None)


def _request_inputs(module: RankingModule) -> dict[str, tf.TensorSpec]:
    """What `rank_known_user` takes."""
    return {
        "user": _input("user", [None]),
        "candidates": _input("candidates", [None, None]),
        "time": _input("time", [None], tf.int64),
        **{name: _input(name, [None]) for name in module.fields.context_names},
    }


def _history_inputs(module: RankingModule) -> dict[str, tf.TensorSpec]:
    """What `rank` takes besides."""
    texts = [HISTORY_PREFIX + part for part in ("items", "behaviours", *module.fields.context_names)]
    times = HISTORY_PREFIX + "times"
    return {
        **{name: _input(name, [None, None]) for name in texts},
        times: _input(times, [None, None], tf.int64),
        **{name: _input(name, [None]) for name in module.fields.attribute_names},
    }


def _input(name: str, shape: list[None], dtype: tf.DType = tf.string) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name=name)


def _rank_pairs(module: RankingModule, examples: tf.Tensor) -> tf.Tensor:
    """Probabilities float32 [B] of serialized (user, item) pairs: slates of one."""
    request = tf.io.parse_example(examples, request_example_spec(module.fields.context_names))
    request["candidates"] = request.pop("item")[:, None]
    return _answer(module.rank_known_user(request))["probabilities"][:, 0]


def _answer(ranked: Ranked) -> dict[str, tf.Tensor]:
    """Probabilities, 0 where a candidate is padding, and the mask of the others."""
    mask = ranked.slate["mask"]
    return {"probabilities": tf.where(mask, tf.sigmoid(ranked.prediction.logits), 0.0), "mask": mask}
