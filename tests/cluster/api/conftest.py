"""Region servers in the test's process, over real databases."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cluster.conftest import TRIO, Server, await_that, folder, free_port

from acgs2.api.app import create_app
from acgs2.api.region import Config, RegionServer
from acgs2.api.tokens import create_keys, mint
from acgs2.audit.keys import PUBLIC, create_audit_keys, key_name, private_path
from acgs2.local.loopback import loopback
from acgs2.policy.amendment import public_key
from acgs2.topology import Topology

#: Who may amend the constitution in these tests.
AMENDERS = {
    f"{name}@acgs2.example": Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32))
    for name in ("eve", "fay", "gil")
}


@dataclass
class Api:
    """A way to call the regions as some principal."""

    urls: Mapping[str, str]
    keys: Path

    def token(
        self,
        subject: str = "op",
        role: str = "operator",
        tenant: str | None = None,
        *,
        audience: str = "trio",
        lifetime_s: int = 600,
        now_s: int | None = None,
    ) -> str:
        return mint(
            self.keys,
            subject,
            role,
            audience,
            now_s or int(time.time()),
            tenant=tenant,
            lifetime_s=lifetime_s,
        )

    def call(
        self,
        region: str,
        method: str,
        path: str,
        zone: str | None = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **rest: Any,
    ) -> httpx.Response:
        sent = {"authorization": f"Bearer {token or self.token()}", **(headers or {})}
        if zone:
            sent["x-data-sovereignty"] = zone
        return loopback().request(method, self.urls[region] + path, headers=sent, timeout=20, **rest)

    def tenant(self, zone: str = "eu", region: str = "eu-west-1") -> str:
        answer = self.call(region, "POST", "/api/v1/tenants", zone, json={"name": "Acme"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture(scope="module")
def otlp() -> str | None:
    """Where the regions of a module send their traces; a module that looks at them has one of its own."""
    return None


@pytest.fixture(scope="module")
def api(server: Server, trio: Topology, databases: Mapping[str, str], otlp: str | None) -> Iterator[Api]:
    with folder() as path:
        create_keys(path)
        create_audit_keys(path, [(r, key_name(trio.domain, trio.name, r)) for r in trio.regions])
        (path / "trio.yaml").write_text(TRIO, encoding="utf-8")
        ports = {region: free_port() for region in databases}
        urls = {region: f"http://127.0.0.1:{port}" for region, port in ports.items()}
        servers = []
        for region, database in databases.items():
            config = Config(
                region=region,
                topology=str(path / "trio.yaml"),
                listen_port=ports[region],
                database=server.dsn(database, "acgs_app"),
                owner_database=server.dsn(database, "acgs_owner"),
                peers={r: u for r, u in urls.items() if r != region},
                peer_databases={r: server.dsn(d, "acgs_link") for r, d in databases.items() if r != region},
                life_path=str(path / f"{region}.life.json"),
                jwks_path=str(path / "jwks.json"),
                audit_key_path=str(private_path(path, region)),
                audit_keys_path=str(path / PUBLIC),
                amender_keys={name: public_key(key) for name, key in AMENDERS.items()},
                otlp=otlp,
            )
            app = create_app(RegionServer(config, trio))
            one = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=ports[region], log_level="error"))
            thread = threading.Thread(target=one.run, daemon=True)
            thread.start()
            servers.append((one, thread))
        made = Api(urls, path / "signing.json")

        def ready() -> bool:
            try:
                return all(
                    h.json().get("status") == "ready"
                    and h.json()["governance"]["serving"]
                    and all(h.json()["peers_connected"].values())
                    for h in (loopback().get(url + "/health") for url in urls.values())
                )
            except httpx.HTTPError:
                return False

        try:
            await_that(ready, "the regions to be ready")
            yield made
        finally:
            for one, thread in servers:
                one.should_exit = True
                thread.join(timeout=15)


def stored(server: Server, databases: Mapping[str, str]) -> str:
    """Return a digest of how much every region holds, to see that nothing was stored."""
    counts = {}
    for region, database in databases.items():
        with server.connect(database) as conn:
            counts[region] = conn.execute(
                b"SELECT (SELECT count(*) FROM acgs.tenant), (SELECT count(*) FROM acgs.user_profile), (SELECT count(*) FROM acgs.agent),"
                b" (SELECT count(*) FROM acgs.tenant_config), (SELECT count(*) FROM acgs.audit_event), (SELECT count(*) FROM acgs.request)"
            ).fetchone()
    return json.dumps(counts)
