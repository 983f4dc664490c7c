"""Authorities on disk: which there are, which are accepted, and the bundle that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from acgs2.errors import RuntimeFault
from acgs2.local.pki.files import PRIVATE, PUBLIC, certificate_in, key_in, names_in, read, secret, write
from acgs2.local.pki.issue import Issued, make_authority

__all__ = [
    "Authorities",
    "add_authority",
    "authorities_in",
    "bundle_in",
    "issuer_of",
    "mend_trust",
    "signing",
    "trust",
    "trusted_of",
]

Authorities = Mapping[int, x509.Certificate]
_AUTHORITY = re.compile(r"authority-([0-9]+)\.pem")


def authorities_in(folder: Path) -> dict[int, x509.Certificate]:
    """Return the authorities that there are, by number; raises RuntimeFault `authority-unusable`."""
    found: dict[int, x509.Certificate] = {}
    for path in folder.glob("authority-*.pem"):
        if match := _AUTHORITY.fullmatch(path.name):
            if (certificate := certificate_in(read(path))) is None:
                raise _unusable(path)
            found[int(match[1])] = certificate
    return found


def bundle_in(folder: Path) -> list[x509.Certificate]:
    """Return what the bundle in force holds."""
    name = names_in(read(folder / "trust.json")).get("trusted_ca")
    content = read(folder / name) if name else b""
    try:
        return x509.load_pem_x509_certificates(content) if content else []
    except ValueError:
        return []


def trusted_of(folder: Path, authorities: Authorities, now: datetime) -> tuple[int, ...]:
    """Return the authorities that are accepted; all that there are, if it is nowhere said which."""
    accepted = bundle_in(folder) or list(authorities.values())
    return tuple(
        number
        for number, certificate in sorted(authorities.items())
        if certificate in accepted and now < certificate.not_valid_after_utc
    )


def issuer_of(leaf: x509.Certificate, authorities: Authorities, trusted: tuple[int, ...]) -> int | None:
    """Return the number of the authority among those trusted that issued a certificate."""
    for number in trusted:
        try:
            leaf.verify_directly_issued_by(authorities[number])
        except (ValueError, InvalidSignature):
            continue
        return number
    return None


def add_authority(folder: Path, number: int, now: datetime) -> x509.Certificate:
    """Make an authority and write it down; nobody accepts it yet."""
    made = make_authority(number, now)
    # Its key stays with who runs the supervisor: no proxy needs it.
    write(folder / f"authority-{number}.key", made.key_pem(), PRIVATE, ours=True)
    write(folder / f"authority-{number}.pem", made.certificate_pem(), PUBLIC)
    return made.certificate


def signing(folder: Path, number: int) -> Issued:
    """Return an authority to sign with; raises RuntimeFault `authority-unusable`."""
    certificate = certificate_in(read(folder / f"authority-{number}.pem"))
    key = key_in(read(folder / f"authority-{number}.key"))
    if certificate is None or key is None or key.public_key() != certificate.public_key():
        raise _unusable(folder / f"authority-{number}.key")
    return Issued(certificate, key)


def _unusable(path: Path) -> RuntimeFault:
    return RuntimeFault(
        "authority-unusable",
        f"{path} is missing, or is not what belongs there.",
        hint=f"Put it back from a backup, or stop the cluster, remove {path.parent}, and `acgs2 up`.",
        path=str(path),
    )


def trust(folder: Path, authorities: Authorities, trusted: tuple[int, ...]) -> None:
    """Have these authorities accepted and no others; keys of others are of no more use to anybody good."""
    before = names_in(read(folder / "trust.json")).get("trusted_ca", "trust-0.pem")
    past = re.fullmatch(r"trust-([0-9]+)\.pem", before)
    bundle = folder / f"trust-{int(past[1]) + 1 if past else 1}.pem"
    _write_bundle(folder, bundle, [authorities[n].public_bytes(Encoding.PEM) for n in trusted])
    for path in folder.glob("trust-*.pem"):
        if path.name not in (bundle.name, before):
            path.unlink()
    for number in authorities.keys() - set(trusted):
        (folder / f"authority-{number}.key").unlink(missing_ok=True)
        (folder / f"authority-{number}.pem").unlink()


def _write_bundle(folder: Path, bundle: Path, authorities: Iterable[bytes]) -> None:
    content = b"".join(authorities)
    write(bundle, content, PUBLIC)
    write(folder / "trust.pem", content, PUBLIC)
    write(folder / "trust.json", secret("trust", "validation_context", {"trusted_ca": bundle}), PUBLIC)


def mend_trust(folder: Path, authorities: Authorities, trusted: tuple[int, ...]) -> None:
    """Write the bundle again where a crash or a move of the folder left it in pieces."""
    name = names_in(read(folder / "trust.json")).get("trusted_ca", "")
    whole = secret("trust", "validation_context", {"trusted_ca": folder / name})
    if (
        read(folder / "trust.json") != whole
        or read(folder / "trust.pem") != read(folder / name)
        or not set(bundle_in(folder)) >= {authorities[n] for n in trusted}
        or authorities.keys() - set(trusted)
    ):
        trust(folder, authorities, trusted)
