"""Keys and certificates: an authority, and what it issues. No files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acgs2.errors import InputError

__all__ = ["EDGE", "LEAF_LIFE", "Issued", "identities", "is_due", "make_authority", "make_leaf", "names_of"]

#: The identity of whoever stands before all regions.
EDGE = "edge"
LEAF_LIFE = timedelta(days=90)
_AUTHORITY_LIFE = timedelta(days=3653)
#: How far another machine's clock may be behind ours and still accept what was just made.
_SKEW = timedelta(minutes=5)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_NAME = 253


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the private key as PEM, PKCS #8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def identities(domain: str, regions: Iterable[str]) -> Mapping[str, tuple[x509.GeneralName, ...]]:
    """Return every identity of a cluster with the names that its certificate is for.

    Raises:
        InputError: the domain or a region cannot be in a certificate (`domain-not-a-name`,
            `region-not-a-name`).
    """
    found: dict[str, tuple[x509.GeneralName, ...]] = {}
    _check(domain, "domain")
    for region in sorted(set(regions)):
        if region == EDGE or "." in region:
            raise InputError("region-not-a-name", f"A region cannot be called {region!r}.")
        _check(region, "region")
        found[region] = _names(f"api.{region}.{domain}", f"spiffe://{domain}/region/{region}")
    return found | {EDGE: _names(f"api.{domain}", f"spiffe://{domain}/edge")}


def _check(name: str, what: str) -> None:
    # Room is left for "api.", and for a region before the domain.
    if len(name) > _LONGEST_NAME - 70 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise InputError(
            f"{what}-not-a-name",
            f"No certificate can be made for the {what} {name!r}: it is not a host name.",
            hint="Labels of a-z, 0-9 and '-', with dots between them, as in acgs2.example.",
        )


def _names(host: str, uri: str) -> tuple[x509.GeneralName, ...]:
    return (
        x509.DNSName(host),
        x509.DNSName("localhost"),
        x509.IPAddress(IPv4Address("127.0.0.1")),
        x509.UniformResourceIdentifier(uri),
    )


def names_of(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """Return the names that a certificate is for; none for an authority."""
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Return whether a certificate is in the last third of its life or past it, or from the future."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return not begin <= now < begin + (end - begin) * 2 / 3


def make_authority(number: int, now: datetime) -> Issued:
    """Make an authority; numbers keep names of authorities apart, which verifiers look issuers up by."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ACGS-2 local authority {number}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _builder(subject, subject, key, identifier, now, now + _AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    return Issued(builder.sign(key, hashes.SHA256()), key)


def make_leaf(
    name: str, names: Sequence[x509.GeneralName], authority: Issued, now: datetime, life: timedelta
) -> Issued:
    """Make a certificate for both sides of a connection; it ends no later than its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = min(now + life, authority.certificate.not_valid_after_utc)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(subject, authority.certificate.subject, key, identifier, now, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issued(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_identifier: x509.SubjectKeyIdentifier,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier), critical=False
        )
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
