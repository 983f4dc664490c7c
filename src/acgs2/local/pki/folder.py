"""The certificates of a cluster as they are in its folder, and every way in which they change.

`trust.json` and `NAME/secret.json` are what processes follow: each names the files that are in force, and is
replaced as one. Everything else is derived from them, so whatever a crash leaves behind is gone on from.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from acgs2.errors import RuntimeFault
from acgs2.local.pki.authorities import (
    Authorities,
    add_authority,
    authorities_in,
    bundle_in,
    issuer_of,
    mend_trust,
    signing,
    trust,
    trusted_of,
)
from acgs2.local.pki.change import Standing, Step, next_step
from acgs2.local.pki.files import locked
from acgs2.local.pki.issue import EDGE, LEAF_LIFE, Issued, identities, is_due, make_leaf, names_of
from acgs2.local.pki.leaves import issue, leaf_in, mend_secret

__all__ = ["Found", "advance", "ensure", "inspect", "no_certificates", "probe", "rotate", "standing"]

Names = Mapping[str, tuple[x509.GeneralName, ...]]


@dataclass(frozen=True)
class Found:
    """One certificate that is in force; the number of an authority is in its name."""

    name: str
    serial: str
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    key_id: str
    issuer_key_id: str
    days_left: float


def ensure(
    folder: Path, domain: str, regions: Iterable[str], now: datetime, *, leaf_life: timedelta = LEAF_LIFE
) -> None:
    """Make what is missing, replace what has a third of its life left or less, and change nothing else.

    Args:
        folder: where; made if it is missing.
        domain: the topology's domain.
        regions: who needs a certificate, beside the edge.
        now: the time, with a zone.
        leaf_life: how long a certificate made now is good for.

    Raises:
        InputError: domain or region cannot be in a certificate.
        RuntimeFault: an authority's key is missing or broken (`authority-unusable`).
    """
    folder = folder.absolute()
    names = identities(domain, regions)
    with locked(folder):
        authorities, now_at = _whole_trust(folder, names, now)
        for name, wanted in names.items():
            leaf = leaf_in(folder, name)
            issuer = None if leaf is None else issuer_of(leaf, authorities, now_at.trusted)
            if leaf is None or issuer is None or set(names_of(leaf)) != set(wanted) or is_due(leaf, now):
                issue(folder, name, wanted, signing(folder, now_at.signer), now, leaf_life)
            else:
                mend_secret(folder, name)


def rotate(
    folder: Path, domain: str, regions: Iterable[str], now: datetime, *, leaf_life: timedelta = LEAF_LIFE
) -> None:
    """Give every identity another key and certificate, from the authority whose turn it is.

    What is missing is made; folders of regions that are gone are removed. Raises as `ensure` does.
    """
    folder = folder.absolute()
    names = identities(domain, regions)
    with locked(folder):
        _, now_at = _whole_trust(folder, names, now)
        _issue_all(folder, names, now_at.signer, now, leaf_life)
        for gone in folder.glob("*/secret.json"):
            if gone.parent.name not in names:
                shutil.rmtree(gone.parent)


def _whole_trust(folder: Path, names: Names, now: datetime) -> tuple[Authorities, Standing]:
    """Have an authority, and the bundle as it should be."""
    authorities = authorities_in(folder)
    trusted = trusted_of(folder, authorities, now)
    if not trusted:
        # An authority that has ended vouches for nothing: another takes its place at once.
        number = max(authorities, default=0) + 1
        authorities[number] = add_authority(folder, number, now)
        trusted = (number,)
        trust(folder, authorities, trusted)
    else:
        mend_trust(folder, authorities, trusted)
    return authorities, _standing(folder, authorities, trusted, names)


def _issue_all(folder: Path, names: Names, number: int, now: datetime, life: timedelta) -> None:
    authority = signing(folder, number)
    for name, wanted in names.items():
        issue(folder, name, wanted, authority, now, life)


def standing(folder: Path, domain: str, regions: Iterable[str], now: datetime) -> Standing:
    """Return where a change of the authority stands.

    Raises:
        RuntimeFault: there are no certificates (`no-certificates`).
    """
    authorities = authorities_in(folder)
    trusted = trusted_of(folder, authorities, now)
    if not trusted:
        raise no_certificates(folder)
    return _standing(folder, authorities, trusted, identities(domain, regions))


def no_certificates(folder: Path) -> RuntimeFault:
    """Return the error that there are none."""
    return RuntimeFault(
        "no-certificates",
        f"There are no certificates in {folder}.",
        hint="`acgs2 up` makes them.",
        path=str(folder),
    )


def advance(
    folder: Path,
    domain: str,
    regions: Iterable[str],
    now: datetime,
    step: Step,
    *,
    leaf_life: timedelta = LEAF_LIFE,
) -> bool:
    """Take a step of a change of the authority; the caller has waited until everybody has taken the last.

    Returns:
        Whether it was taken; it is not when it is not the next one, for another was here first.

    Raises:
        RuntimeFault: there are no certificates, or an authority's key is missing or broken.
    """
    folder = folder.absolute()
    names = identities(domain, regions)
    with locked(folder):
        now_at = standing(folder, domain, names.keys() - {EDGE}, now)
        if next_step(now_at) is not step:
            return False
        authorities = authorities_in(folder)
        newest = now_at.trusted[-1]
        if step is Step.INTRODUCE:
            number = max(authorities) + 1
            authorities[number] = add_authority(folder, number, now)
            trust(folder, authorities, (*now_at.trusted, number))
        elif step is Step.REISSUE:
            _issue_all(folder, names, newest, now, leaf_life)
        else:
            trust(folder, authorities, (newest,))
        return True


def probe(
    folder: Path, domain: str, region: str, now: datetime, authority: int, *, life: timedelta
) -> Issued:
    """Make a certificate of a region that is in no file, to ask who accepts an authority."""
    return make_leaf(region, identities(domain, [region])[region], signing(folder, authority), now, life)


def inspect(folder: Path, now: datetime) -> list[Found]:
    """Return every certificate that is in force: authorities first, then leaves by name."""
    authorities = authorities_in(folder)
    accepted = bundle_in(folder)
    found = [_found(f"authority-{n}", a, now) for n, a in sorted(authorities.items()) if a in accepted]
    for path in sorted(folder.glob("*/secret.json")):
        if (leaf := leaf_in(folder, path.parent.name)) is not None:
            found.append(_found(path.parent.name, leaf, now))
    return found


def _found(name: str, certificate: x509.Certificate, now: datetime) -> Found:
    extensions = certificate.extensions
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    end = certificate.not_valid_after_utc
    return Found(
        name=name,
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=end,
        names=tuple(str(n.value) for n in names_of(certificate)),
        key_id=own.hex(),
        issuer_key_id=issuer.hex(),
        days_left=round((end - now) / timedelta(days=1), 1),
    )


def _standing(folder: Path, authorities: Authorities, trusted: tuple[int, ...], names: Names) -> Standing:
    leaves = [leaf for name in names if (leaf := leaf_in(folder, name)) is not None]
    issuers = {issuer_of(leaf, authorities, trusted) for leaf in leaves}
    return Standing(trusted, frozenset(n for n in issuers if n is not None))
