"""The local server's methods as gRPC handlers: parsing, admission, errors and metrics around each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from serving.admission import Admission
from serving.metrics import RequestLabels, ServerMetrics
from serving.request_error import RequestError, invalid

Answer = Callable[[Any, RequestLabels], Message]  # Request and labels to fill -> response; raises RequestError.


def add_methods(
    server: grpc.Server,
    service: ServiceDescriptor,
    answers: Mapping[str, Answer],
    metrics: ServerMetrics,
    admission: Admission | None,
) -> None:
    """Adds the methods of a service to a server.

    The handlers get the request's bytes and parse them themselves: of bytes that are no protocol buffer gRPC would say
    INTERNAL, though it is the caller's mistake.

    Args:
        server: Where to add them, before it starts.
        service: The service of the published protos.
        answers: Name of a method of the service -> what answers it.
        metrics: Where each request is counted.
        admission: Bounds the requests of this service; None answers them all at once.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_RpcMethod(service.methods_by_name[name], answer, metrics, admission))
        for name, answer in answers.items()
    }
    server.add_registered_method_handlers(service.full_name, handlers)


class _RpcMethod:
    def __init__(
        self, method: MethodDescriptor, answer: Answer, metrics: ServerMetrics, admission: Admission | None
    ) -> None:
        self._name = method.name
        self._request_class = GetMessageClass(method.input_type)
        self._answer = answer
        self._metrics = metrics
        self._admission = admission

    def __call__(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        began = time.perf_counter()
        labels = RequestLabels()
        code, message, response = grpc.StatusCode.UNKNOWN, "", b""
        try:
            with nullcontext() if self._admission is None else self._admission.admit(context):
                response = self._answer(self._parse(data), labels).SerializeToString()
            code = grpc.StatusCode.OK
        except RequestError as error:
            code, message = error.code, str(error)
        finally:
            self._metrics.observe(self._name, labels, code, time.perf_counter() - began)
        if code is not grpc.StatusCode.OK:
            context.abort(code, message)  # It raises.
        return response

    def _parse(self, data: bytes) -> Message:
        request = self._request_class()
        try:
            request.ParseFromString(data)
        except DecodeError as error:
            raise invalid(
                f"The message must be a {request.DESCRIPTOR.full_name}, a whole protocol buffer whose strings are "
                f"UTF-8. Received: {len(data)} bytes that are none: {error} Build it from TensorFlow Serving's protos."
            ) from error
        return request
