"""TLS and mutual TLS, with certificates made here."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.channel import TlsFiles, open_channel
from serving.client import RankingClient, ServingError


class Authority:
    """Signs certificates, and writes each with its key as PEM files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(self._sign(self.name, self.key.public_key(), [], is_authority=True))

    def write(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Returns the files of a new key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_path, certificate_path = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        key_path.write_bytes(encoded)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_path.write_bytes(self._sign(subject, key.public_key(), hosts))
        return key_path, certificate_path

    def _sign(self, subject, public_key, hosts, is_authority=False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(issuer_name=self.name, subject_name=subject, public_key=public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            names = [x509.DNSName(host) for host in hosts] + [x509.IPAddress(ipaddress.ip_address("::1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


def credentials_of(authority: Authority, *hosts: str, mutual: bool = False) -> grpc.ServerCredentials:
    pair = tuple(path.read_bytes() for path in authority.write("server", *hosts))
    roots = authority.certificate.read_bytes() if mutual else None
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=mutual)


def ask(target: str, tls: TlsFiles | None) -> str:
    with RankingClient(target, model_name="stub", timeout_seconds=5, tls=tls) as client:
        return client.status()[0].state


def test_server_is_known_by_its_root_certificate(serve_stub, stub, authority, stranger):
    with serve_stub(credentials_of(authority, "localhost")) as target:
        assert ask(target, TlsFiles(authority.certificate)) == "AVAILABLE"
        for tls in (TlsFiles(stranger.certificate), TlsFiles(), None):
            with pytest.raises(ServingError, match="must listen at .* TLS certificates"):
                ask(target, tls)
    assert stub.calls["GetModelStatus"] == 1


def test_name_in_the_certificate_may_differ_from_the_host(serve_stub, authority):
    with serve_stub(credentials_of(authority, "models.example")) as target:
        assert ask(target, TlsFiles(authority.certificate, server_name="models.example")) == "AVAILABLE"
        with pytest.raises(ServingError, match="must listen at"):
            ask(target, TlsFiles(authority.certificate))


def test_mutual_tls_refuses_clients_without_the_right_certificate(serve_stub, stub, authority, stranger):
    with serve_stub(credentials_of(authority, "localhost", mutual=True)) as target:
        key, certificate = authority.write("client")
        assert ask(target, TlsFiles(authority.certificate, key, certificate)) == "AVAILABLE"
        for pair in (stranger.write("client"), (None, None)):
            with pytest.raises(ServingError, match="must listen at"):
                ask(target, TlsFiles(authority.certificate, *pair))
    assert stub.calls["GetModelStatus"] == 1


def test_key_and_certificate_need_each_other(tmp_path):
    with pytest.raises(
        ValueError, match="both a client key and a client certificate. Received: key a.key, certificate None"
    ):
        TlsFiles(client_key=Path("a.key"))


def test_files_must_be_pem(tmp_path):
    with pytest.raises(ValueError, match="must be readable. Received: .*none.pem: No such file"):
        open_channel("localhost:1", TlsFiles(tmp_path / "none.pem"))
    (tmp_path / "root.der").write_bytes(b"\x30\x82")
    with pytest.raises(ValueError, match="must be in PEM form. Received: .*root.der"):
        open_channel("localhost:1", TlsFiles(tmp_path / "root.der"))
