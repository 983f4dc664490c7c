"""Files of the folder: each is written whole or not at all, and what Envoy reads is in the form it wants."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

__all__ = [
    "PRIVATE",
    "PUBLIC",
    "certificate_in",
    "key_in",
    "locked",
    "make_folder",
    "names_in",
    "read",
    "secret",
    "write",
]

PRIVATE, PUBLIC = 0o600, 0o644
#: What a crash may leave of a file that was being written begins so.
_UNFINISHED = ".new-"
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def make_folder(path: Path) -> None:
    """Make a folder that others may pass through and not list, for the owner of the one that it is in."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o711)
        _give(path, path.parent)


def write(path: Path, content: bytes, mode: int, *, ours: bool = False) -> None:
    """Put a file in its place at once: a reader sees the old one or the new one, also after a crash.

    Args:
        path: where; the folder's owner gets the file, who may be another user than ours when we are root.
        content: what.
        mode: who may read it.
        ours: whether only we may have it, whoever owns the folder.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, mode)
            if not ours:
                _give(Path(name), path.parent)
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _give(path: Path, like: Path) -> None:
    owner = like.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def read(path: Path) -> bytes:
    """Return a file's content, empty if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return b""


def secret(name: str, kind: str, files: dict[str, Path]) -> bytes:
    """Return a file of Envoy's secret discovery service with one secret.

    Args:
        name: what listeners and clusters ask for.
        kind: `tls_certificate` or `validation_context`.
        files: the files it is made of.
    """
    body = {field: {"filename": str(path)} for field, path in files.items()}
    resource = {"@type": _SECRET, "name": name, kind: body}
    return json.dumps({"resources": [resource]}, indent=1).encode()


def names_in(text: bytes) -> dict[str, str]:
    """Return the files' names in what `secret()` made, without folders: the whole may have been moved.

    What is not in its form has no files.
    """
    try:
        resource: dict[str, Any] = json.loads(text)["resources"][0]
        kind = "tls_certificate" if "tls_certificate" in resource else "validation_context"
        return {field: Path(source["filename"]).name for field, source in resource[kind].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the folder; the others wait, for it takes milliseconds."""
    make_folder(folder)
    handle = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, PRIVATE)
    with os.fdopen(handle, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in folder.glob(f"**/{_UNFINISHED}*"):
            left.unlink()
        yield


def certificate_in(content: bytes) -> x509.Certificate | None:
    """Return the certificate that a file's content is, if it is one."""
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        return None


def key_in(content: bytes) -> ec.EllipticCurvePrivateKey | None:
    """Return the private key that a file's content is, if it is one of ours."""
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None
