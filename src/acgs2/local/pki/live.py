"""Changes of certificates in a running cluster: who listens is asked whether it has taken each step."""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from acgs2.errors import RuntimeFault
from acgs2.local.pki.change import Step, next_step
from acgs2.local.pki.files import PRIVATE, names_in, read, write
from acgs2.local.pki.folder import Found, advance, inspect, no_certificates, probe, rotate, standing
from acgs2.local.pki.issue import EDGE, Issued

__all__ = ["Endpoint", "Target", "change_authority", "endpoints_of", "rotate_leaves"]

Now = Callable[[], datetime]
Progress = Callable[[str], None]
Check = Callable[[], str]
_PROBE_LIFE = timedelta(minutes=10)
#: What OpenSSL calls the alerts of a server that does not accept our certificate.
_REFUSAL = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA)")
_TRY_S = 2.0
_PAUSE_S = 0.05
_DONE = {
    Step.REISSUE: "authority {new} is accepted beside authority {old}; made certificates from it",
    Step.RETIRE: "authority {old} is accepted no longer",
}


@dataclass(frozen=True)
class Endpoint:
    """Something that listens with TLS on this machine.

    Args:
        name: what it is called among the ports.
        port: where it listens.
        identity: whose certificate it presents.
        asks: whether it demands a certificate of who connects.
    """

    name: str
    port: int
    identity: str
    asks: bool


def endpoints_of(ports: Mapping[str, int], regions: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return who listens with TLS among the ports of a cluster; what has no port is not there."""
    known = set(regions)
    found: list[Endpoint] = []
    for name, port in sorted(ports.items()):
        kind, _, place = name.partition("/")
        if kind == "edge":
            found.append(Endpoint(name, port, EDGE, asks=False))
        elif kind in ("gateway", "mesh") and place in known:
            found.append(Endpoint(name, port, place, asks=kind == "mesh"))
    return tuple(found)


@dataclass(frozen=True)
class Target:
    """What a change is made to.

    Args:
        folder: where its certificates are.
        domain: the topology's domain.
        regions: its regions; there is at least one.
        endpoints: who has to take each step.
        now: the time, with a zone.
        timeout_s: how long a step may take.
    """

    folder: Path
    domain: str
    regions: Sequence[str]
    endpoints: Sequence[Endpoint]
    now: Now
    timeout_s: float = 30.0


def rotate_leaves(of: Target, progress: Progress) -> list[str]:
    """Give every identity another key and certificate, and wait until every endpoint presents it.

    Returns:
        The endpoints where nobody listens: they present the new one when they come up.

    Raises:
        RuntimeFault: there are no certificates (`no-certificates`), an endpoint does not present the new one
            in time (`certificate-not-taken`), or an authority's key is not there (`authority-unusable`).
    """
    standing(of.folder, of.domain, of.regions, of.now())
    rotate(of.folder, of.domain, of.regions, of.now())
    progress("made new certificates")
    absent = _await(of, {e.name: _presents(of, e) for e in of.endpoints})
    progress("every endpoint that listens presents its own")
    return absent


def change_authority(of: Target, progress: Progress) -> list[str]:
    """Put another authority in the place of the one that there is, or end a change that was begun.

    Returns:
        The endpoints where nobody listens.

    Raises:
        RuntimeFault: as `rotate_leaves`; what was begun is gone on with by the next call.
    """
    at = standing(of.folder, of.domain, of.regions, of.now())
    if at.changing:
        progress("going on with a change that was begun")
    else:
        advance(of.folder, of.domain, of.regions, of.now(), Step.INTRODUCE)
    absent: set[str] = set()
    while (at := standing(of.folder, of.domain, of.regions, of.now())).changing:
        step, old, new = next_step(at), at.trusted[0], at.trusted[-1]
        if step is Step.REISSUE:
            # Who does not ask for certificates cannot be asked whom it accepts. It reads its bundle no later
            # than what was replaced after it: when it presents this certificate, it has the bundle.
            rotate(of.folder, of.domain, of.regions, of.now())
        absent.update(_await(of, {e.name: _presents(of, e) for e in of.endpoints}))
        with _Probe(of, new) as known:
            absent.update(_await(of, {e.name: _answers(of, e, known, True) for e in of.endpoints if e.asks}))
        with _Probe(of, old) as retired:
            advance(of.folder, of.domain, of.regions, of.now(), step)
            if step is Step.RETIRE:
                refusing = {e.name: _answers(of, e, retired, False) for e in of.endpoints if e.asks}
                absent.update(_await(of, refusing))
        progress(_DONE[step].format(old=old, new=new))
    return sorted(absent)


def _await(of: Target, pending: dict[str, Check]) -> list[str]:
    """Wait until every check has nothing to say; return the names of those where nobody listens."""
    deadline_s = time.monotonic() + of.timeout_s
    absent: list[str] = []
    while pending:
        said: dict[str, str] = {}
        for name, check in pending.items():
            try:
                said[name] = check()
            except ConnectionRefusedError:
                absent.append(name)
                said[name] = ""
            except OSError as error:  # TLS errors are among them
                said[name] = f"{error}"
        pending = {name: check for name, check in pending.items() if said[name]}
        if pending and time.monotonic() > deadline_s:
            raise RuntimeFault(
                "certificate-not-taken",
                f"After {of.timeout_s:g} s: " + "; ".join(f"{name}: {said[name]}" for name in pending) + ".",
                hint="Peers still accept each other. See `acgs2 logs`, mend it, and repeat the command.",
                endpoints=sorted(pending),
            )
        if pending:
            time.sleep(_PAUSE_S)
    return absent


def _presents(of: Target, endpoint: Endpoint) -> Check:
    """Return the check that an endpoint presents the certificate that is in force for it."""

    def check() -> str:
        wanted = _in_force(of, endpoint.identity)
        own = of.folder / of.regions[0]
        files = names_in(read(own / "secret.json"))
        context = _context(of, own / files["certificate_chain"], own / files["private_key"])
        with _connect(endpoint, wanted.names[0], context) as made:
            serial = str((made.getpeercert() or {}).get("serialNumber", "")).lower().lstrip("0")
        return "" if serial == wanted.serial else f"it presents the certificate {serial}, not {wanted.serial}"

    return check


def _in_force(of: Target, identity: str) -> Found:
    for found in inspect(of.folder, of.now()):
        if found.name == identity:
            return found
    raise no_certificates(of.folder)


def _answers(of: Target, endpoint: Endpoint, shown: _Probe, accepted: bool) -> Check:
    """Return the check that an endpoint accepts, or refuses, a certificate."""

    def check() -> str:
        host = _in_force(of, endpoint.identity).names[0]
        does = _is_accepted(endpoint, host, _context(of, *shown.files))
        if does is accepted:
            return ""
        return f"it {'refuses' if accepted else 'accepts'} certificates of authority {shown.authority}"

    return check


def _is_accepted(endpoint: Endpoint, host: str, context: ssl.SSLContext) -> bool:
    """Say that nothing will be said, and see what comes: the end, or that our certificate is not accepted.

    With TLS 1.3 a client has shaken hands before the server has looked at its certificate. Anything said
    would be left unread by a server that refuses us, and its alert would be lost with the connection.
    """
    try:
        with _connect(endpoint, host, context) as made:
            socket.socket.shutdown(made, socket.SHUT_WR)  # of TCP; SSLSocket's own would end TLS both ways
            made.recv(1)
    except ssl.SSLError as error:
        if _REFUSAL.search(error.reason or ""):
            return False
        raise
    return True


def _context(of: Target, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(of.folder / "trust.pem"))
    context.load_cert_chain(certificate, key)
    return context


def _connect(endpoint: Endpoint, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", endpoint.port), timeout=_TRY_S)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


class _Probe:
    """A certificate of an authority in files of its own, for as long as it is asked with."""

    def __init__(self, of: Target, authority: int) -> None:
        self.authority = authority
        self._made: Issued = probe(of.folder, of.domain, of.regions[0], of.now(), authority, life=_PROBE_LIFE)
        self._folder = tempfile.TemporaryDirectory(prefix="acgs2-probe-")
        self.files = (Path(self._folder.name) / "probe.pem", Path(self._folder.name) / "probe.key")

    def __enter__(self) -> _Probe:
        write(self.files[0], self._made.certificate_pem(), PRIVATE, ours=True)
        write(self.files[1], self._made.key_pem(), PRIVATE, ours=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
