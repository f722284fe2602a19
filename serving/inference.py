"""The calls of PredictionService that run a model, on one loaded version: what the server and the warm-up share."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, predict_pb2, regression_pb2

from serving.loaded_model import LoadedModel
from serving.request_error import RequestError, invalid
from serving.served_signature import ServedSignature

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"
_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"  # Names that TensorFlow Serving fixes.


def predict(model: LoadedModel, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Runs any signature on named tensors. Raises RequestError where the request does not fit it."""
    signature = model.signature(request.model_spec.signature_name)
    outputs = signature.predict(request.inputs, request.output_filter)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = model.name
    response.model_spec.version.value = model.version
    response.model_spec.signature_name = signature.name
    for name, proto in outputs.items():
        response.outputs[name].CopyFrom(proto)
    return response


def classify(
    model: LoadedModel, signature_name: str, examples: input_pb2.Input
) -> classification_pb2.ClassificationResult:
    """Runs a signature of the method classify: outputs classes, string [B, n], and scores, float32 [B, n], or one.

    Raises:
        RequestError: The signature is of another method, or the examples do not fit it.
    """
    signature, outputs = _run_on_examples(model, signature_name, examples, CLASSIFY_METHOD)
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    shapes = {array.shape for array in (classes, scores) if array is not None}
    if len(shapes) != 1 or any(len(shape) != 2 for shape in shapes):
        raise _wrong_outputs(signature)
    ((num_examples, num_classes),) = shapes
    result = classification_pb2.ClassificationResult()
    for row in range(num_examples):
        classification = result.classifications.add()
        for column in range(num_classes):
            classification.classes.add(
                label="" if classes is None else classes[row, column].decode(errors="replace"),
                score=0.0 if scores is None else scores[row, column],
            )
    return result


def regress(model: LoadedModel, signature_name: str, examples: input_pb2.Input) -> regression_pb2.RegressionResult:
    """Runs a signature of the method regress: one output, float32 [B] or [B, 1]. Raises RequestError as classify."""
    signature, outputs = _run_on_examples(model, signature_name, examples, REGRESS_METHOD)
    values = outputs.get(_OUTPUTS)
    if values is None or values.ndim == 0 or values.size != len(values):
        raise _wrong_outputs(signature)
    return regression_pb2.RegressionResult(
        regressions=[regression_pb2.Regression(value=value) for value in values.ravel()]
    )


def multi_infer(
    model: LoadedModel, request: inference_pb2.MultiInferenceRequest
) -> inference_pb2.MultiInferenceResponse:
    """Runs classify and regress signatures of one model on the same examples, one after the other.

    Raises:
        RequestError: The tasks are of several models or repeat a signature, name another method, or fail themselves.
    """
    signature_names = [task.model_spec.signature_name for task in request.tasks]
    model_names = sorted({task.model_spec.name for task in request.tasks})
    if len(model_names) != 1 or len(set(signature_names)) != len(signature_names):
        raise invalid(
            "The tasks of MultiInference must be of one model, each of another signature. "
            f"Received: the models {model_names} and the signatures {signature_names}. Send one request a model."
        )
    response = inference_pb2.MultiInferenceResponse()
    for task in request.tasks:
        name = task.model_spec.signature_name
        result = response.results.add()
        if task.method_name == CLASSIFY_METHOD:
            result.classification_result.CopyFrom(classify(model, name, request.input))
        elif task.method_name == REGRESS_METHOD:
            result.regression_result.CopyFrom(regress(model, name, request.input))
        else:
            raise invalid(
                f"The method of a task must be `{CLASSIFY_METHOD}` or `{REGRESS_METHOD}`. "
                f"Received: `{task.method_name}`. Use Predict for other signatures."
            )
        result.model_spec.name = model.name
        result.model_spec.version.value = model.version
        result.model_spec.signature_name = model.signature(name).name
    return response


def _run_on_examples(
    model: LoadedModel, signature_name: str, examples: input_pb2.Input, method: str
) -> tuple[ServedSignature, dict[str, np.ndarray]]:
    signature = model.signature(signature_name)
    if signature.definition.method_name != method or set(signature.definition.inputs) != {_INPUTS}:
        raise invalid(
            f"The signature must have the method `{method}` and the one input `{_INPUTS}`. Received: "
            f"`{signature.name}` of `{signature.definition.method_name}` with {sorted(signature.definition.inputs)}. "
            "Name another signature, or use Predict."
        )
    serialized = _serialize_examples(examples)
    if not 0 < len(serialized) <= model.limits.max_batch_size:
        raise invalid(
            f"A request must bring 1 to {model.limits.max_batch_size} examples. Received: {len(serialized)}. "
            "Fill input.example_list, or split the request."
        )
    outputs = signature.run({_INPUTS: tf.constant(serialized, tf.string)})
    return signature, {name: tensor.numpy() for name, tensor in outputs.items()}


def _serialize_examples(examples: input_pb2.Input) -> list[bytes]:
    """Serializes each tf.Example; features of a context come first, so that an example's own ones replace them."""
    if examples.WhichOneof("kind") == "example_list_with_context":
        with_context = examples.example_list_with_context
        context = with_context.context.SerializeToString()
        return [context + example.SerializeToString() for example in with_context.examples]
    return [example.SerializeToString() for example in examples.example_list.examples]


def _wrong_outputs(signature: ServedSignature) -> RequestError:
    return invalid(
        f"A signature of `{signature.definition.method_name}` must have the outputs `{_CLASSES}` and `{_SCORES}` "
        f"[B, n], or `{_OUTPUTS}` [B]. Received: `{signature.name}` with {sorted(signature.definition.outputs)}. "
        "Use Predict for it."
    )
