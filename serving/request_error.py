"""The one error that the local server's services turn into a gRPC status."""

from __future__ import annotations

from typing import NoReturn

import grpc

# gRPC sends the message in a header, and clients refuse headers of more than 8 KiB, percent-encoded.
MAX_MESSAGE_CHARACTERS = 1_500


class RequestError(ValueError):
    """A request that cannot be answered.

    Args:
        code: The gRPC status that the caller gets.
        message: The rule, what was received and what to do; cut to `MAX_MESSAGE_CHARACTERS`.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        if len(message) > MAX_MESSAGE_CHARACTERS:
            message = message[: MAX_MESSAGE_CHARACTERS - 3] + "..."
        super().__init__(message)
        self.code = code


def abort(context: grpc.ServicerContext, error: RequestError) -> NoReturn:
    """Ends the call of `context` with the status and message of `error`."""
    context.abort(error.code, str(error))
    raise error  # Not reached: gRPC's abort always raises. It tells type checkers that nothing follows.


def abort_unimplemented(context: grpc.ServicerContext, method: str) -> NoReturn:
    """Ends the call of `context` with UNIMPLEMENTED, naming the `method` that only TensorFlow Serving has."""
    abort(
        context,
        RequestError(
            grpc.StatusCode.UNIMPLEMENTED,
            "The local server answers Predict, GetModelMetadata and GetModelStatus only. "
            f"Received: {method}. Use TensorFlow Serving for it.",
        ),
    )
