"""Certificates under real Envoys: they follow the files, and no change of these fails a handshake."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster.conftest import TRIO, await_that, folder, free_port

from acgs2.errors import RuntimeFault
from acgs2.local import pki
from acgs2.local.pki.files import names_in
from acgs2.local.state import FORMAT, create_state

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
UPSTREAM = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


#: What the state has ports for and nobody listens at.
ABSENT = ["gateway/eu-central-1", "gateway/us-east-1", "mesh/eu-central-1", "mesh/us-east-1"]


def now() -> datetime:
    return datetime.now(UTC)


# Envoys: one is a region, with a gateway for everybody and a mesh for peers; one is the edge before it.


def tls_context(tls: Path, identity: str) -> dict[str, Any]:
    def secret(name: str, path: Path) -> dict[str, Any]:
        source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    return {
        "tls_certificate_sds_secret_configs": [secret("identity", tls / identity / "secret.json")],
        "validation_context_sds_secret_config": secret("trust", tls / "trust.json"),
    }


def listener(port: int, context: dict[str, Any], asks: bool, action: dict[str, Any]) -> dict[str, Any]:
    router = {"@type": f"{FILTERS}.http.router.v3.Router"}
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}
            ]
        },
    }
    downstream = {
        "@type": f"{TLS}.DownstreamTlsContext",
        "common_tls_context": context,
        "require_client_certificate": asks,
    }
    return {
        "name": f"port-{port}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": downstream},
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ],
            }
        ],
    }


def upstream(port: int, context: dict[str, Any]) -> dict[str, Any]:
    """A cluster that shakes hands anew for every request."""
    options = {
        "@type": f"type.googleapis.com/{UPSTREAM}",
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": "region",
        "typed_extension_protocol_options": {UPSTREAM: options},
        "load_assignment": {
            "cluster_name": "region",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TLS}.UpstreamTlsContext",
                "common_tls_context": context,
                "sni": "api.eu-west-1.acgs2.example",
                "max_session_keys": 0,
            },
        },
    }


@contextmanager
def envoy(path: Path, resources: dict[str, Any]) -> Iterator[None]:
    path.with_suffix(".json").write_text(json.dumps({"static_resources": resources}))
    ports = [a["address"]["socket_address"]["port_value"] for a in resources["listeners"]]
    program = Path(sys.executable).parent / "envoy"
    command = [program, "-c", path.with_suffix(".json"), "--disable-hot-restart", "--concurrency", "1"]
    command += ["--service-node", path.name, "--service-cluster", "test"]
    with path.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen([*command, "--log-level", "warning"], stdout=log, stderr=log)
    try:
        for port in ports:
            await_that(lambda port=port: listens(port, process, path), f"port {port}")
        yield
    finally:
        process.terminate()
        process.wait()


def listens(port: int, process: subprocess.Popen[bytes], path: Path) -> bool:
    assert process.poll() is None, path.with_suffix(".log").read_text()
    try:
        httpx.get(f"http://127.0.0.1:{port}", trust_env=False)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:
        pass  # It wants TLS.
    return True


@pytest.fixture(scope="module")
def cluster() -> Iterator[pki.Target]:
    with folder() as path, ExitStack() as running:
        (path / "trio.yaml").write_text(TRIO, encoding="utf-8")
        state = create_state(path / "state", path / "trio.yaml")
        tls, regions, domain = state.path / "tls", tuple(state.topology.regions), state.topology.domain
        pki.ensure(tls, domain, regions, now())
        ports = {f"{kind}/eu-west-1": free_port() for kind in ("gateway", "mesh")} | {"edge/us": free_port()}
        region, edge = tls_context(tls, "eu-west-1"), tls_context(tls, "edge")
        answer = {"direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
        listeners = [
            listener(ports["gateway/eu-west-1"], region, False, answer),
            listener(ports["mesh/eu-west-1"], region, True, answer),
        ]
        running.enter_context(envoy(path / "region", {"listeners": listeners}))
        forward = listener(ports["edge/us"], edge, False, {"route": {"cluster": "region"}})
        clusters = [upstream(ports["mesh/eu-west-1"], edge)]
        running.enter_context(envoy(path / "edge", {"listeners": [forward], "clusters": clusters}))
        # Nobody listens at the other region.
        state.ports.update(ports)
        (state.path / "state.json").write_text(json.dumps({"format": FORMAT, "ports": state.ports}))
        yield pki.Target(tls, domain, regions, pki.endpoints_of(state.ports, regions), now)


def port_of(cluster: pki.Target, name: str) -> int:
    return next(e.port for e in cluster.endpoints if e.name == name)


# A client


def get(cluster: pki.Target, name: str, identity: Path | None) -> int:
    """Make one connection with what is in force now, and return the status of its request."""
    context = ssl.create_default_context(cafile=str(cluster.folder / "trust.pem"))
    if identity is not None:
        files = names_in((identity / "secret.json").read_bytes())
        context.load_cert_chain(identity / files["certificate_chain"], identity / files["private_key"])
    url = f"https://127.0.0.1:{port_of(cluster, name)}/"
    return httpx.get(url, verify=context, trust_env=False).status_code


@dataclass
class Caller:
    """Connects to everybody all the time, and keeps what went wrong."""

    cluster: pki.Target
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.is_set():
            for name in ("mesh/eu-west-1", "gateway/eu-west-1", "edge/us"):
                try:
                    status = get(self.cluster, name, self.cluster.folder / "us-east-1")
                except (httpx.HTTPError, OSError) as error:
                    self.failures.append(f"{name}: {error!r}")
                else:
                    self.failures += [f"{name}: {status}"] if status != 200 else []
                self.calls += 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            await_that(lambda: self.calls > 5, "the first calls")
            yield
            before = self.calls
            await_that(lambda: self.calls > before + 5, "calls after it")
        finally:
            self._stop.set()
            thread.join()


def in_force(cluster: pki.Target) -> dict[str, pki.Found]:
    return {found.name: found for found in pki.inspect(cluster.folder, now())}


def test_every_leaf_is_rotated_and_no_handshake_fails(cluster: pki.Target) -> None:
    before = in_force(cluster)
    caller = Caller(cluster)
    with caller.calling():
        absent = pki.rotate_leaves(cluster, lambda _: None)
    assert caller.failures == []
    assert absent == ABSENT
    after = in_force(cluster)
    assert before.keys() == after.keys()
    for name, found in after.items():
        assert (found.serial != before[name].serial) == (not name.startswith("authority"))


def test_the_authority_is_changed_and_no_handshake_fails(cluster: pki.Target) -> None:
    before = in_force(cluster)
    kept = cluster.folder.parent / "kept"
    shutil.copytree(cluster.folder / "us-east-1", kept)
    assert get(cluster, "mesh/eu-west-1", kept) == 200
    caller = Caller(cluster)
    with caller.calling():
        done = command(cluster, "rotate", "--authority", "--json")
    assert done.returncode == 0, done.stderr
    assert caller.failures == []
    result = json.loads(done.stdout)
    assert len(result["steps"]) == 2
    assert result["not_listening"] == ABSENT
    after = in_force(cluster)
    assert [c["serial"] for c in result["certificates"]] == [found.serial for found in after.values()]
    assert after.keys() == before.keys() - {"authority-1"} | {"authority-2"}
    assert {f.issuer_key_id for f in after.values()} == {after["authority-2"].key_id}
    for refused in (kept, None):
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            get(cluster, "mesh/eu-west-1", refused)


def command(cluster: pki.Target, *arguments: str) -> subprocess.CompletedProcess[str]:
    state = str(cluster.folder.parent)
    whole = [sys.executable, "-m", "acgs2.cli", "--state", state, "certificates", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


def test_certificates_are_shown_and_what_there_is_not_is_said(cluster: pki.Target) -> None:
    shown = command(cluster, "show")
    assert shown.returncode == 0, shown.stderr
    for word in (*in_force(cluster), "spiffe://acgs2.example/region/us-east-1", "90.0"):
        assert word in shown.stdout
    away = cluster.folder.rename(cluster.folder.with_name("away"))
    for arguments in (["show"], ["rotate"], ["rotate", "--authority"]):
        done = command(cluster, *arguments, "--json")
        assert (done.returncode, json.loads(done.stderr)["error"]) == (5, "no-certificates")
    assert not cluster.folder.exists()
    away.rename(cluster.folder)


@pytest.mark.parametrize("broken_off_at", [pki.Step.INTRODUCE, pki.Step.REISSUE])
def test_a_change_that_was_broken_off_is_gone_on_with(cluster: pki.Target, broken_off_at: pki.Step) -> None:
    given = (cluster.folder, cluster.domain, cluster.regions, now())
    old = pki.standing(*given).trusted[0]
    for step in (pki.Step.INTRODUCE, pki.Step.REISSUE):
        assert pki.advance(*given, step)
        pki.rotate_leaves(cluster, lambda _: None)
        if step is broken_off_at:
            break
    said: list[str] = []
    pki.change_authority(cluster, said.append)
    assert said[0] == "going on with a change that was begun"
    assert pki.standing(*given).trusted == (old + 1,)


def test_an_endpoint_that_does_not_follow_is_named(cluster: pki.Target) -> None:
    # The region's Envoy does not follow this folder, as one would that is frozen.
    other = cluster.folder.parent / "other"
    shutil.copytree(cluster.folder, other)
    with pytest.raises(RuntimeFault, match=r"gateway/eu-west-1.*it presents the certificate") as caught:
        pki.rotate_leaves(replace(cluster, folder=other, timeout_s=0.2), lambda _: None)
    assert caught.value.reference == "certificate-not-taken"
    assert caught.value.exit_code == 5


def test_an_expired_certificate_is_replaced_in_a_running_envoy(cluster: pki.Target) -> None:
    long_ago = now() - timedelta(days=100)
    given = (cluster.domain, cluster.regions)
    pki.rotate(cluster.folder, *given, long_ago)
    with pytest.raises(httpx.ConnectError, match="expired"):
        await_that(lambda: get(cluster, "gateway/eu-west-1", None) != 200, "the old certificate")
    pki.ensure(cluster.folder, *given, now())

    def mended() -> bool:
        try:
            return get(cluster, "mesh/eu-west-1", cluster.folder / "us-east-1") == 200
        except httpx.HTTPError:
            return False

    await_that(mended, "the new certificate")
