"""Pairs of a user and an item as tf.Examples, and the answers to Classify and Regress."""

from __future__ import annotations

from collections.abc import Sequence

from serving.answers import PairProbability
from serving.published_protos import classification_pb2, example_pb2, input_pb2, regression_pb2
from serving.rank_request import UserItemPair
from serving.tensor_lists import encode_text

CLASSIFY_SIGNATURE = "classify"
REGRESS_SIGNATURE = "regress"
POSITIVE = "positive"


def build_examples(pairs: Sequence[UserItemPair], now: int) -> input_pb2.Input:
    """Builds one tf.Example a pair, with the features `user`, `item`, `time` and each context field that is named.

    Args:
        pairs: At least one.
        now: The as-of time, epoch seconds, of pairs that have none.

    Raises:
        ValueError: There are no pairs, or a context field has the name of another feature.
    """
    if not pairs:
        raise ValueError("There must be at least one pair. Received: none. Name a user and an item.")
    return input_pb2.Input(
        example_list=input_pb2.ExampleList(examples=[_build_example(pair, now) for pair in pairs]),
    )


def _build_example(pair: UserItemPair, now: int) -> example_pb2.Example:
    clashes = sorted({"user", "item", "time"} & set(pair.context))
    if clashes:
        raise ValueError(
            f"A context field must not be user, item or time. Received: {clashes}. Pass these as the pair's own fields."
        )
    example = example_pb2.Example()
    features = example.features.feature
    for name, text in {**pair.context, "user": pair.user, "item": pair.item}.items():
        features[name].bytes_list.value.append(encode_text(text))
    features["time"].int64_list.value.append(now if pair.time is None else pair.time)
    return example


def read_classifications(
    response: classification_pb2.ClassificationResponse, pairs: Sequence[UserItemPair]
) -> list[PairProbability]:
    """Reads the score of the class `positive` of each pair, in the request's order.

    Raises:
        ValueError: The answer has another number of pairs, or one has no class `positive`.
    """
    found = []
    for classifications in response.result.classifications:
        scores = {answer.label: answer.score for answer in classifications.classes}
        if POSITIVE not in scores:
            raise ValueError(
                f"An answer of Classify must have the class `{POSITIVE}`. Received: {sorted(scores)}. "
                "Serve a model that export.saved_model wrote."
            )
        found.append(scores[POSITIVE])
    return _join(pairs, found)


def read_regressions(
    response: regression_pb2.RegressionResponse, pairs: Sequence[UserItemPair]
) -> list[PairProbability]:
    """Reads the value of each pair, in the request's order. Raises ValueError where there is another number of them."""
    return _join(pairs, [regression.value for regression in response.result.regressions])


def _join(pairs: Sequence[UserItemPair], probabilities: Sequence[float]) -> list[PairProbability]:
    if len(probabilities) != len(pairs):
        raise ValueError(
            f"The answer must have one result for each of the {len(pairs)} pairs. Received: {len(probabilities)}. "
            "Serve a model that export.saved_model wrote."
        )
    return [
        PairProbability(pair.user, pair.item, probability)
        for pair, probability in zip(pairs, probabilities, strict=True)
    ]
