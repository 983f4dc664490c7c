"""Certificates of identities on disk: `NAME/secret.json` says which is in force."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from acgs2.local.pki.files import (
    PRIVATE,
    PUBLIC,
    certificate_in,
    key_in,
    make_folder,
    names_in,
    read,
    secret,
    write,
)
from acgs2.local.pki.issue import Issued, make_leaf

__all__ = ["issue", "leaf_in", "mend_secret"]


def leaf_in(folder: Path, name: str) -> x509.Certificate | None:
    """Return an identity's certificate; None if it is missing, broken, or without its key."""
    files = names_in(read(folder / name / "secret.json"))
    if files.keys() != {"certificate_chain", "private_key"}:
        return None
    certificate = certificate_in(read(folder / name / files["certificate_chain"]))
    key = key_in(read(folder / name / files["private_key"]))
    whole = certificate is not None and key is not None and certificate.public_key() == key.public_key()
    return certificate if whole else None


def issue(
    folder: Path,
    name: str,
    wanted: tuple[x509.GeneralName, ...],
    authority: Issued,
    now: datetime,
    life: timedelta,
) -> None:
    """Give an identity another key and certificate."""
    made = make_leaf(name, wanted, authority, now, life)
    serial = f"{made.certificate.serial_number:x}"
    own = folder / name
    make_folder(own)
    # A process may be about to read the files in force; those before them nobody reads any more.
    in_force = {"secret.json", *names_in(read(own / "secret.json")).values()}
    for path in own.iterdir():
        if path.name not in in_force:
            path.unlink()
    files = {"certificate_chain": own / f"{serial}.pem", "private_key": own / f"{serial}.key"}
    write(files["certificate_chain"], made.certificate_pem(), PUBLIC)
    write(files["private_key"], made.key_pem(), PRIVATE)
    write(own / "secret.json", secret("identity", "tls_certificate", files), PUBLIC)


def mend_secret(folder: Path, name: str) -> None:
    """Name the files by where they are now, if the folder was moved."""
    text = read(folder / name / "secret.json")
    files = {field: folder / name / file for field, file in names_in(text).items()}
    if text != (right := secret("identity", "tls_certificate", files)):
        write(folder / name / "secret.json", right, PUBLIC)
