"""The client's connection: TLS, and retries where the server is unavailable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

MAX_ATTEMPTS = 5  # The most that gRPC allows.

# gRPC retries by itself, within the call's deadline, and multiplies each wait by 0.8 to 1.2 at random. The waits are
# 0.1, 0.2, 0.4 and 0.8 seconds: enough for a server behind a balancer to be replaced, and soon over where none is.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],  # Every method.
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Where most calls fail, nothing is tried again: retries must not multiply the load of servers that are overloaded.
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}

_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A retry needs a connection, and by default gRPC opens the next one a whole second after a refused one.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A request is kept for its retries up to this size; the default, 256 KiB, is below a batch of long slates.
    ("grpc.per_rpc_retry_buffer_size", 16 << 20),
    # An explanation of a long slate is larger than gRPC's default limit of 4 MiB.
    ("grpc.max_receive_message_length", -1),
]


@dataclass(frozen=True)
class TlsFiles:
    """What a connection under TLS needs, each a PEM file.

    Attributes:
        root_certificates: Of the authorities that may have signed the server's certificate; where None, gRPC's own.
        client_key: The client's private key, for mutual TLS.
        client_certificate: The client's certificate chain, for mutual TLS.
        server_name: The name in the server's certificate, where it is not the host that the client connects to.

    Raises:
        ValueError: There is a client key without a certificate, or the other way.
    """

    root_certificates: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.client_key is None) != (self.client_certificate is None):
            raise ValueError(
                "Mutual TLS must have both a client key and a client certificate. "
                f"Received: key {self.client_key}, certificate {self.client_certificate}. Name both, or neither."
            )


def open_channel(target: str, tls: TlsFiles | None) -> grpc.Channel:
    """Opens a channel to `host:port`, without TLS where `tls` is None. It connects with its first call.

    Raises:
        ValueError: A PEM file cannot be read, or holds no PEM.
    """
    if tls is None:
        return grpc.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        _read_pem(tls.root_certificates), _read_pem(tls.client_key), _read_pem(tls.client_certificate)
    )
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, credentials, options=[*_OPTIONS, *named])


def _read_pem(path: Path | None) -> bytes | None:
    """Reads a file. It must look like PEM, since gRPC takes anything, and then fails as if no server were there."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"A TLS file must be readable. Received: {path}: {error.strerror}. Name another.") from error
    if b"-----BEGIN " not in content:
        raise ValueError(f"A TLS file must be in PEM form. Received: {path}. Convert it with `openssl`.")
    return content
