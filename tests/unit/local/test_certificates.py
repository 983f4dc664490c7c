"""The folder of certificates: what is in them, what is changed when, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import pairwise, product
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from acgs2.errors import InputError, RuntimeFault
from acgs2.local import pki
from acgs2.local.pki.files import names_in

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DOMAIN = "acgs2.example"
REGIONS = ("eu-west-1", "us-east-1")


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    pki.ensure(tmp_path / "tls", DOMAIN, REGIONS, NOW)
    return tmp_path / "tls"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def serials(folder: Path) -> dict[str, str]:
    return {found.name: found.serial for found in pki.inspect(folder, NOW)}


def files_of(folder: Path, name: str) -> tuple[Path, Path]:
    files = names_in((folder / name / "secret.json").read_bytes())
    return folder / name / files["certificate_chain"], folder / name / files["private_key"]


def leaf_of(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files_of(folder, name)[0].read_bytes())


def verify(folder: Path, name: str, at: datetime) -> None:
    """Have another's verifier look at a certificate, as servers' and as clients' are looked at."""
    bundle = Store(x509.load_pem_x509_certificates((folder / "trust.pem").read_bytes()))
    rules, leaf = PolicyBuilder().store(bundle).time(at), leaf_of(folder, name)
    rules.build_server_verifier(x509.DNSName("localhost")).verify(leaf, [])
    rules.build_server_verifier(x509.IPAddress(IPv4Address("127.0.0.1"))).verify(leaf, [])
    rules.build_client_verifier().verify(leaf, [])


def test_certificates_say_who_they_are_of_and_what_they_are_for(tls: Path) -> None:
    for name, uri in (("eu-west-1", "region/eu-west-1"), ("edge", "edge")):
        verify(tls, name, NOW)
        leaf = leaf_of(tls, name)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        host = f"api.{name}.{DOMAIN}" if name != "edge" else f"api.{DOMAIN}"
        assert names.get_values_for_type(x509.DNSName) == [host, "localhost"]
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{DOMAIN}/{uri}"]
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        limits = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
        assert limits.critical
        assert not limits.value.ca
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
        assert leaf.not_valid_before_utc < NOW
        assert leaf.not_valid_after_utc == NOW + pki.LEAF_LIFE
    authority = x509.load_pem_x509_certificate((tls / "authority-1.pem").read_bytes())
    limits = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    assert authority.not_valid_after_utc > NOW + timedelta(days=3650)


def test_private_keys_are_private_and_the_rest_may_be_read(tls: Path) -> None:
    pki.rotate(tls, DOMAIN, REGIONS, NOW)
    pki.advance(tls, DOMAIN, REGIONS, NOW, pki.Step.INTRODUCE)
    keys = set(tls.rglob("*.key"))
    assert len(keys) >= 5
    for path in (tls, *tls.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        private = path in keys or path.name == ".lock"
        assert mode == (0o711 if path.is_dir() else 0o600 if private else 0o644), path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_keys_belong_to_the_owner_of_the_folder_but_the_authority_s(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    os.chown(tmp_path / "tls", 4711, 4711)
    pki.ensure(tmp_path / "tls", DOMAIN, REGIONS, NOW)
    assert files_of(tmp_path / "tls", "edge")[1].stat().st_uid == 4711
    assert (tmp_path / "tls" / "authority-1.key").stat().st_uid == 0


def test_a_second_ensure_changes_nothing(tls: Path) -> None:
    before = contents(tls)
    pki.ensure(tls, DOMAIN, REGIONS, NOW + pki.LEAF_LIFE * 0.6)
    assert contents(tls) == before


def test_a_region_that_joins_gets_its_own_and_one_that_is_gone_loses_it(tls: Path) -> None:
    before = serials(tls)
    pki.ensure(tls, DOMAIN, (*REGIONS, "eu-central-1"), NOW)
    assert serials(tls).items() >= before.items()
    verify(tls, "eu-central-1", NOW)
    pki.rotate(tls, DOMAIN, ("eu-central-1",), NOW)
    assert serials(tls).keys() == {"authority-1", "edge", "eu-central-1"}


def test_certificates_are_renewed_in_the_last_third_of_their_life(tls: Path) -> None:
    later = NOW + pki.LEAF_LIFE * 0.67
    before = serials(tls)
    pki.ensure(tls, DOMAIN, REGIONS, later)
    after = serials(tls)
    assert {name for name in before if before[name] == after[name]} == {"authority-1"}
    verify(tls, "edge", later)
    # Who was about to read the ones before still finds them; after another rotation they are gone.
    assert len(list((tls / "edge").glob("*.key"))) == 2
    pki.rotate(tls, DOMAIN, REGIONS, later)
    assert len(list((tls / "edge").glob("*.key"))) == 2


def test_a_certificate_for_other_names_is_replaced(tls: Path) -> None:
    before = serials(tls)
    pki.ensure(tls, "other.example", REGIONS, NOW)
    assert not set(before.values()) & {s for name, s in serials(tls).items() if name != "authority-1"}


def test_an_authority_that_has_ended_is_replaced_with_all_that_it_issued(tls: Path) -> None:
    later = NOW + timedelta(days=3660)
    pki.ensure(tls, DOMAIN, REGIONS, later)
    assert serials(tls).keys() == {"authority-2", "edge", *REGIONS}
    verify(tls, "edge", later)


def test_no_certificate_outlives_its_authority(tls: Path) -> None:
    late = NOW + timedelta(days=3640)
    pki.rotate(tls, DOMAIN, REGIONS, late)
    authority = x509.load_pem_x509_certificate((tls / "authority-1.pem").read_bytes())
    assert leaf_of(tls, "edge").not_valid_after_utc == authority.not_valid_after_utc


def test_a_step_that_is_not_the_next_is_not_taken(tls: Path) -> None:
    before = contents(tls)
    for step in (pki.Step.REISSUE, pki.Step.RETIRE):
        assert not pki.advance(tls, DOMAIN, REGIONS, NOW, step)
    assert contents(tls) == before
    with pytest.raises(RuntimeFault, match="no certificates"):
        pki.advance(tls.parent / "none", DOMAIN, REGIONS, NOW, pki.Step.INTRODUCE)


# Two peers while the authority is changed


def context(side: int, bundle: Path, leaf: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.load_verify_locations(bundle / "trust.pem")
    made.load_cert_chain(*files_of(leaf, "eu-west-1"))
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does
    return made


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Have two peers look at each other's certificates, without a socket."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue


def test_peers_a_step_apart_shake_hands_whatever_each_has_loaded(tmp_path: Path) -> None:
    given = (DOMAIN, REGIONS, datetime.now(UTC))
    pki.ensure(tmp_path / "0", *given)
    for number, step in enumerate(pki.Step):
        shutil.copytree(tmp_path / str(number), tmp_path / str(number + 1))
        assert pki.advance(tmp_path / str(number + 1), *given, step)
    states = [tmp_path / str(number) for number in range(4)]
    for near in pairwise(states):
        for views in product(product(near, near), product(near, near)):
            client, server = views
            shake_hands(context(ssl.PROTOCOL_TLS_CLIENT, *client), context(ssl.PROTOCOL_TLS_SERVER, *server))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(
            context(ssl.PROTOCOL_TLS_CLIENT, states[0], states[0]),
            context(ssl.PROTOCOL_TLS_SERVER, states[2], states[2]),
        )


# What is found broken


def broken_bundle(tls: Path) -> None:
    (tls / "trust.json").write_text("{")


def lost_bundle(tls: Path) -> None:
    (tls / "trust-1.pem").unlink()


def broken_copy(tls: Path) -> None:
    (tls / "trust.pem").write_bytes(b"")


def broken_leaf(tls: Path) -> None:
    files_of(tls, "edge")[0].write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def other_key(tls: Path) -> None:
    shutil.copyfile(files_of(tls, "eu-west-1")[1], files_of(tls, "edge")[1])


def lost_leaf(tls: Path) -> None:
    shutil.rmtree(tls / "edge")


def strange_secret(tls: Path) -> None:
    (tls / "edge" / "secret.json").write_text('{"resources": [{"tls_certificate": {"private_key": 1}}]}')


def left_authority(tls: Path) -> None:
    pki.ensure(tls.parent / "other", DOMAIN, REGIONS, NOW)
    shutil.copyfile(tls.parent / "other" / "authority-1.pem", tls / "authority-2.pem")


def left_file(tls: Path) -> None:
    (tls / "edge" / ".new-x").write_bytes(b"half of a k")


@pytest.mark.parametrize(
    "damage",
    [
        broken_bundle,
        lost_bundle,
        broken_copy,
        broken_leaf,
        other_key,
        lost_leaf,
        strange_secret,
        left_authority,
        left_file,
    ],
)
def test_what_is_broken_is_mended_and_nothing_else_is_changed(
    tls: Path, damage: Callable[[Path], None]
) -> None:
    whole = serials(tls)
    damage(tls)
    pki.ensure(tls, DOMAIN, REGIONS, NOW)
    after = serials(tls)
    assert {**after, "edge": ""} == {**whole, "edge": ""}
    for name in (*REGIONS, "edge"):
        verify(tls, name, NOW)
    assert not list(tls.rglob(".new-*"))
    before = contents(tls)
    pki.ensure(tls, DOMAIN, REGIONS, NOW)
    assert contents(tls) == before


def test_a_folder_that_was_moved_names_its_files_anew(tls: Path) -> None:
    moved = tls.rename(tls.parent / "moved")
    whole = serials(moved)
    pki.ensure(moved, DOMAIN, REGIONS, NOW)
    assert serials(moved) == whole
    for path in moved.rglob("*.json"):
        assert str(tls) + "/" not in path.read_text()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("no key")])
def test_an_authority_s_key_that_is_lost_is_said(tls: Path, damage: Callable[[Path], None]) -> None:
    damage(tls / "authority-1.key")
    pki.ensure(tls, DOMAIN, REGIONS, NOW)  # it needs none now
    with pytest.raises(RuntimeFault, match=r"authority-1\.key") as caught:
        pki.rotate(tls, DOMAIN, REGIONS, NOW)
    assert caught.value.reference == "authority-unusable"
    assert caught.value.hint


@pytest.mark.parametrize(
    "domain", ["", "a_b.example", "a..b", "-a", "Ä.example", "a/b", "A.example", "a." * 120]
)
def test_a_domain_that_is_not_a_name_is_refused(tmp_path: Path, domain: str) -> None:
    with pytest.raises(InputError, match="domain"):
        pki.ensure(tmp_path / "tls", domain, REGIONS, NOW)
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("region", ["", "edge", "..", "a/b", "a.b", "x" * 64, "a\0"])
def test_a_region_that_is_not_a_label_is_refused(tmp_path: Path, region: str) -> None:
    with pytest.raises(InputError, match="region"):
        pki.ensure(tmp_path / "tls", DOMAIN, [region], NOW)


class Crashed(BaseException):
    """The machine stops here."""


@pytest.mark.parametrize("step", [*pki.Step, None])
def test_a_crash_at_any_moment_leaves_what_can_be_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: pki.Step | None
) -> None:
    given = (DOMAIN, REGIONS, NOW)
    pki.ensure(tmp_path / "start", *given)
    for before in pki.Step:
        if before is step or step is None:
            break
        pki.advance(tmp_path / "start", *given, before)
    replace = os.replace
    for survived in range(20):
        folder = tmp_path / str(survived)
        shutil.copytree(tmp_path / "start", folder)
        left = survived

        def crash(source: str, target: Path) -> None:
            nonlocal left
            if left == 0:
                raise Crashed
            left -= 1
            replace(source, target)

        with monkeypatch.context() as crashing:
            crashing.setattr(os, "replace", crash)
            try:
                _ = pki.rotate(folder, *given) if step is None else pki.advance(folder, *given, step)
            except Crashed:
                finished = False
            else:
                finished = True
        pki.ensure(folder, *given)
        for name in (*REGIONS, "edge"):
            verify(folder, name, NOW)
        while (at := pki.standing(folder, *given)).changing:
            assert pki.advance(folder, *given, pki.next_step(at))
        for name in (*REGIONS, "edge"):
            verify(folder, name, NOW)
        if finished:
            return
    pytest.fail("it never finished")
