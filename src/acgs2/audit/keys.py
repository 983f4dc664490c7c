"""The keys of logs and witnesses: two a region, and one public file with everybody's.

A region's log and its duties as a witness have keys of their own. Public keys are `vkey` lines under the
region's name, `{domain}/{topology}/{region}`; a log signs under its origin, that and the incarnation.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from acgs2.audit.checkpoint import region_of
from acgs2.audit.note import COSIGNATURE, ED25519, Key, Signer
from acgs2.errors import InputError, RuntimeFault

__all__ = ["PUBLIC", "OwnKeys", "Trusted", "create_audit_keys", "key_name", "private_path", "read_own"]

#: The file of all public keys.
PUBLIC = "audit-keys"


def key_name(domain: str, topology: str, region: str) -> str:
    """Return the name that a region's keys go by."""
    return f"{domain}/{topology}/{region}"


def private_path(folder: Path, region: str) -> Path:
    """Return where a region's own keys are."""
    return folder / f"audit-{region}.json"


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What a region signs with."""

    log: Signer
    witness: Signer


@dataclass(frozen=True, slots=True)
class Trusted:
    """The public keys that a reader trusts."""

    keys: tuple[Key, ...]

    @classmethod
    def parse(cls, text: str) -> Trusted:
        """Read a file of `vkey` lines; lines that begin with # are remarks.

        Raises:
            InputError: a line is no key (`audit-malformed`).
        """
        lines = (line.strip() for line in text.splitlines())
        return cls(tuple(Key.parse(line) for line in lines if line and not line.startswith("#")))

    def of_log(self, origin: str) -> list[Key]:
        """Return the keys that may sign a log: under its origin, or its region's name."""
        names = (origin, region_of(origin))
        return [k.named(origin) for k in self.keys if k.kind == ED25519 and k.name in names]

    def witnesses(self, origin: str) -> list[Key]:
        """Return the keys that may witness a log: everybody's but its own region's."""
        return [k for k in self.keys if k.kind == COSIGNATURE and k.name != region_of(origin)]


def create_audit_keys(folder: Path, names: Iterable[tuple[str, str]]) -> None:
    """Make the keys of every region that has none, and have the public file name all of them.

    Args:
        folder: where they are; private files get mode 0600. Public keys that are there stay, those of
            regions that are gone too: their logs are still to be verified.
        names: every region with the name that its keys go by.
    """
    public = folder / PUBLIC
    lines = public.read_text(encoding="utf-8").splitlines() if public.exists() else []
    for region, name in names:
        path = private_path(folder, region)
        if not path.exists():
            seeds = {kind: base64.b64encode(secrets.token_bytes(32)).decode() for kind in ("log", "witness")}
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"name": name, **seeds}, file)
        own = read_own(path)
        lines += [line for key in (own.log.key, own.witness.key) if (line := str(key)) not in lines]
    making = public.with_suffix(".new")
    making.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(making, public)


def read_own(path: Path) -> OwnKeys:
    """Read a region's own keys.

    Raises:
        RuntimeFault: the file has none (`audit-keys-unreadable`).
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        name = str(body["name"])
        log, witness = (base64.b64decode(body[kind], validate=True) for kind in ("log", "witness"))
        return OwnKeys(Signer.from_seed(name, ED25519, log), Signer.from_seed(name, COSIGNATURE, witness))
    except (OSError, ValueError, KeyError, TypeError, binascii.Error, InputError) as error:
        raise RuntimeFault(
            "audit-keys-unreadable",
            f"{path.name} does not have the region's audit keys.",
            hint="Restore the file; a new key is a new name in what others trust.",
        ) from error
