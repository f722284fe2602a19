"""Malformed tf.Examples, for Classify, Regress and Predict. Imports no TensorFlow."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.serving.fuzz_case import INVALID, OK, Case, predict_case
from serving.pair_messages import CLASSIFY_SIGNATURE, REGRESS_SIGNATURE, build_examples
from serving.published_protos import (
    classification_pb2,
    example_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    tensor_pb2,
    tensor_shape_pb2,
    types_pb2,
)
from serving.rank_request import UserItemPair

_SLATE_SIGNATURE = "serving_default"
_INPUT_NAMES = {_SLATE_SIGNATURE: "examples", CLASSIFY_SIGNATURE: "inputs", REGRESS_SIGNATURE: "inputs"}
_METHODS = {"Classify": CLASSIFY_SIGNATURE, "Regress": REGRESS_SIGNATURE}


class ExampleSources(NamedTuple):
    """What malformed tf.Examples are made of.

    Attributes:
        model_name: the model's name.
        pair: a user and an item of the log, as Classify and Regress take them.
        slates: serialized tf.Examples of the training feature spec.
    """

    model_name: str
    pair: UserItemPair
    slates: list[bytes]


def _pair_example(sources: ExampleSources) -> example_pb2.Example:
    return build_examples([sources.pair], 0).example_list.examples[0]


def _pair_case(
    rng: random.Random, sources: ExampleSources, examples: list[example_pb2.Example], expected: frozenset[str]
) -> Case:
    """A case of Classify or Regress; both requests have the same fields."""
    method = rng.choice(sorted(_METHODS))
    request = classification_pb2.ClassificationRequest(
        model_spec=model_pb2.ModelSpec(name=sources.model_name, signature_name=_METHODS[method]),
        input=input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples)),
    )
    return Case("", method, request.SerializeToString(), expected)


def _no_examples(rng: random.Random, sources: ExampleSources) -> Case:
    return _pair_case(rng, sources, [], INVALID)


def _missing_feature(rng: random.Random, sources: ExampleSources) -> Case:
    example = _pair_example(sources)
    del example.features.feature[rng.choice(["user", "item", "time"])]
    return _pair_case(rng, sources, [example], INVALID)


def _wrong_feature_type(rng: random.Random, sources: ExampleSources) -> Case:
    example = _pair_example(sources)
    name = rng.choice(["user", "item", "time"])
    feature = example.features.feature[name]
    feature.Clear()
    if rng.random() < 0.5:
        feature.float_list.value.append(float("nan"))
    elif name == "time":
        feature.bytes_list.value.append(b"yesterday")
    else:
        feature.int64_list.value.append(5)
    return _pair_case(rng, sources, [_pair_example(sources), example], INVALID)


def _wrong_feature_size(rng: random.Random, sources: ExampleSources) -> Case:
    example = _pair_example(sources)
    feature = example.features.feature[rng.choice(["user", "item"])]
    if rng.random() < 0.5:
        feature.bytes_list.value.extend([b"x"] * rng.randint(1, 100))
    else:
        del feature.bytes_list.value[:]
    return _pair_case(rng, sources, [example], INVALID)


def _ids_that_are_not_text(rng: random.Random, sources: ExampleSources) -> Case:
    example = _pair_example(sources)
    example.features.feature[rng.choice(["user", "item"])].bytes_list.value[0] = b"\xff\x00\xfe"
    return _pair_case(rng, sources, [example], OK)


def _wrong_method(rng: random.Random, sources: ExampleSources) -> Case:
    case = _pair_case(rng, sources, [_pair_example(sources)], INVALID)
    return case._replace(method="Regress" if case.method == "Classify" else "Classify")


def _truncated_call(rng: random.Random, sources: ExampleSources) -> Case:
    case = _pair_case(rng, sources, [_pair_example(sources)], INVALID)
    return case._replace(data=case.data[: rng.randrange(len(case.data))])


def _text_case(rng: random.Random, sources: ExampleSources, text: bytes, expected: frozenset[str], name: str) -> Case:
    """A case of Predict with a serialized tf.Example for a signature."""
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=[text])
    request = predict_pb2.PredictRequest(inputs={_INPUT_NAMES[name]: tensor})
    request.model_spec.name, request.model_spec.signature_name = sources.model_name, name
    return predict_case(request, expected)


def _no_example_at_all(rng: random.Random, sources: ExampleSources) -> Case:
    text = rng.choice([b"", b"\xff" * 40, b"not an example", rng.randbytes(200)])
    return _text_case(rng, sources, text, INVALID, rng.choice(sorted(_INPUT_NAMES)))


def _truncated_example(rng: random.Random, sources: ExampleSources) -> Case:
    text = rng.choice(sources.slates)
    return _text_case(rng, sources, text[: rng.randrange(len(text))], INVALID, _SLATE_SIGNATURE)


def _example_of_other_values(rng: random.Random, sources: ExampleSources) -> Case:
    """An id, a rank or a count that no data set has: the model may refuse it, or read it as unknown."""
    example = example_pb2.Example.FromString(rng.choice(sources.slates))
    names = [name for name, feature in example.features.feature.items() if feature.int64_list.value]
    values = example.features.feature[rng.choice(sorted(names))].int64_list.value
    values[rng.randrange(len(values))] = rng.choice([-5, 1 << 31, 10**9, -(1 << 63), (1 << 63) - 1])
    return _text_case(rng, sources, example.SerializeToString(), OK | INVALID, _SLATE_SIGNATURE)


def _example_of_other_lengths(rng: random.Random, sources: ExampleSources) -> Case:
    example = example_pb2.Example.FromString(rng.choice(sources.slates))
    values = example.features.feature["neighbour/rank"].int64_list.value
    values.extend([0] * rng.randint(1, 7))
    return _text_case(rng, sources, example.SerializeToString(), INVALID, _SLATE_SIGNATURE)


EXAMPLE_KINDS: dict[str, Callable[[random.Random, ExampleSources], Case]] = {
    "classify, regress: no examples": _no_examples,
    "classify, regress: missing feature": _missing_feature,
    "classify, regress: wrong type of a feature": _wrong_feature_type,
    "classify, regress: wrong size of a feature": _wrong_feature_size,
    "classify, regress: ids that are not UTF-8 (legal)": _ids_that_are_not_text,
    "classify, regress: the other's signature": _wrong_method,
    "classify, regress: truncated": _truncated_call,
    "tf.Example: none": _no_example_at_all,
    "tf.Example: truncated": _truncated_example,
    "tf.Example: values of no data set": _example_of_other_values,
    "tf.Example: lists of other lengths": _example_of_other_lengths,
}
