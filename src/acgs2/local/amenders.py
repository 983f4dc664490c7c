"""The keys of a local cluster's amenders: one file each, to be read by nobody but who made the cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from acgs2.errors import InputError
from acgs2.policy.amendment import public_key

__all__ = ["create_amenders", "key_path", "public_keys", "read_key"]


def create_amenders(folder: Path, names: Iterable[str]) -> None:
    """Make a private key (PEM, mode 0600) for every amender that has none yet."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        path = key_path(folder, name)
        if path.exists():
            continue
        text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            os.fsync(handle)
        unfinished.rename(path)


def key_path(folder: Path, name: str) -> Path:
    """Return where an amender's key lies."""
    return folder / f"{quote(name, safe='@+')}.pem"


def read_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key of a file.

    Raises:
        InputError: it cannot be read or is no Ed25519 key in PEM (`key-unreadable`).
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or "no private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unreadable(path, "no Ed25519 key")
    return key


def public_keys(folder: Path) -> Mapping[str, str]:
    """Return the public key of every amender whose private key is here, as the constitution writes it."""
    return {unquote(file.stem): public_key(read_key(file)) for file in sorted(folder.glob("*.pem"))}


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        "key-unreadable",
        f"{path} cannot be used as a key: {why}.",
        hint="Give an Ed25519 private key, such as `openssl genpkey -algorithm ed25519` makes.",
        file=str(path),
    )
