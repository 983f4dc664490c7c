"""Authorities and certificates for servers that ask for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["make_certificates"]


def make_certificates(path: Path, authorities: Sequence[str], group: str = "") -> None:
    """Write NAME.pem of every authority, and NAME-peer.pem and .key of one loopback peer that it vouches for.

    Args:
        path: the folder.
        authorities: their names.
        group: that peers are of, as Kubernetes reads it: the organization.
    """
    for name in authorities:
        authority, peer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, name, authority, authority, None)
        (path / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        vouched = _certificate(f"{name}-peer", name, peer, authority, made, group)
        (path / f"{name}-peer.pem").write_bytes(vouched.public_bytes(serialization.Encoding.PEM))
        key = peer.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (path / f"{name}-peer.key").write_bytes(key)


def _certificate(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    above: x509.Certificate | None,
    group: str = "",
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.NameAttribute(NameOID.COMMON_NAME, subject)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=above is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
        .add_extension(_usage(above is None), critical=True)
    )
    if above is not None:
        # etcd's gateway is a client of its own server: one certificate for both sides.
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        loopback = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        made = made.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        made = made.add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
    return made.sign(authority, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
