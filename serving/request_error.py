"""The one error that the local server turns into a gRPC status."""

from __future__ import annotations

import grpc

# gRPC sends the message in a header, where a byte beyond ASCII takes three, and clients refuse headers of 8 KiB.
MAX_MESSAGE_BYTES = 2_000


class RequestError(ValueError):
    """A request that cannot be answered.

    Args:
        code: The gRPC status that the caller gets.
        message: The rule, what was received and what to do; cut to `MAX_MESSAGE_BYTES` of UTF-8.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        encoded = message.encode(errors="backslashreplace")
        if len(encoded) > MAX_MESSAGE_BYTES:
            encoded = encoded[: MAX_MESSAGE_BYTES - 3] + b"..."
        super().__init__(encoded.decode(errors="ignore"))
        self.code = code


def invalid(message: str) -> RequestError:
    """The error of a request that is wrong in itself: INVALID_ARGUMENT."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
