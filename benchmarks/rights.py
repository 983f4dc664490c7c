"""From the act to the last copy gone: erasures, withdrawn consents, revoked transfers; beside the links' delay.

    python benchmarks/rights.py [--acts 50] [--records 2000] [--json]

Four regions with their real distances. Each act is made over the API; it is over when every region that had to
forget has been heard to have done so where the act was made. The floor is the round trip to the farthest of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up

TOPOLOGY = """
name: rights
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE, location: [53.35, -6.26]}
  eu-central-1: {country: DE, location: [50.11, 8.68]}
  us-east-1: {country: US, location: [39.04, -77.49]}
  ap-southeast-1: {country: SG, location: [1.35, 103.82]}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
transfers:
  - {zone: eu, to: us-east-1, instrument: scc, entities: [user_profile]}
  - {zone: eu, to: ap-southeast-1, instrument: explicit_consent, entities: [user_profile]}
"""
HOME, FAR = "eu-west-1", "ap-southeast-1"


class Client:
    """Acts at the home region and waits for what follows."""

    def __init__(self, cluster: Cluster) -> None:
        key = cluster.state.path / "secrets" / "signing.json"
        token = mint(key, "bench", "operator", "rights", int(time.time()), lifetime_s=3600)
        self._http = {
            region: httpx.Client(
                base_url=cluster.state.url(region),
                headers={"authorization": f"Bearer {token}"},
                timeout=30,
            )
            for region in cluster.state.topology.regions
        }
        self.tenant = str(self.send("POST", "/api/v1/tenants", {"name": "Acme"})["id"])

    def send(self, method: str, path: str, body: Any = None, region: str = HOME) -> Any:
        # The register belongs to no zone.
        register = path.startswith(("/api/v1/transfers", "/api/v1/d"))
        headers = {} if register else {"x-data-sovereignty": "eu"}
        answer = self._http[region].request(method, path, json=body, headers=headers)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def person(self) -> str:
        body = {"tenant_id": self.tenant, "display_name": "Ann"}
        return str(self.send("POST", "/api/v1/users", body)["id"])

    def held(self, region: str, person: str) -> bool:
        return self._http[region].get(f"/api/v1/users/{person}").status_code == 200

    def confirmed(self, person: str) -> bool:
        owed = self.send("GET", f"/api/v1/duties?key={person}")
        return bool(owed) and all(d["done_at"] for d in owed)


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit("it did not end")
        time.sleep(0.002)


def measure(cluster: Cluster, acts: int, records: int) -> dict[str, Any]:
    """Return how long each kind of act took, in milliseconds."""
    client = Client(cluster)
    erased_ms: list[float] = []
    withdrawn_ms: list[float] = []
    for _ in range(acts):
        person = client.person()
        until(lambda p=person: client.held("us-east-1", p))
        began_s = time.perf_counter()
        client.send("DELETE", f"/api/v1/subjects/{person}")
        until(lambda p=person: client.confirmed(p))
        erased_ms.append((time.perf_counter() - began_s) * 1000)
    for _ in range(acts):
        person = client.person()
        consent = {"tenant_id": client.tenant, "subject_id": person, "to_region": FAR}
        client.send("POST", "/api/v1/consents", consent | {"evidence": "bench"})
        until(lambda p=person: client.held(FAR, p))
        began_s = time.perf_counter()
        client.send("POST", "/api/v1/consents/withdraw", consent)
        until(lambda p=person: client.confirmed(p))
        withdrawn_ms.append((time.perf_counter() - began_s) * 1000)
    for _ in range(records):
        client.person()
    transfer = next(
        t for t in client.send("GET", "/api/v1/transfers")["items"] if t["to_region"] == "us-east-1"
    )
    began_s = time.perf_counter()
    client.send("POST", f"/api/v1/transfers/{transfer['id']}/revoke")
    until(lambda: any(d["region"] == "us-east-1" for d in client.send("GET", "/api/v1/disposals")))
    revoked_ms = (time.perf_counter() - began_s) * 1000
    gone = sum(d["records"] for d in client.send("GET", "/api/v1/disposals") if d["region"] == "us-east-1")
    return {
        "rtt_ms": {
            n.b if n.a == HOME else n.a: n.rtt_ms
            for n in cluster.state.topology.links()
            if HOME in (n.a, n.b)
        },
        "erasure": _percentiles(erased_ms),
        "withdrawal": _percentiles(withdrawn_ms),
        "revocation": {
            "records": gone,
            "ms": round(revoked_ms, 1),
            "records_per_s": round(gone / revoked_ms * 1000),
        },
    }


def _percentiles(took_ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took_ms, n=100)
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "acts": len(took_ms)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--acts", type=int, default=50)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    folder.chmod(0o711)
    (folder / "rights.yaml").write_text(TOPOLOGY, encoding="utf-8")
    cluster = up(folder / "rights.yaml", folder / "state")
    try:
        found = measure(cluster, given.acts, given.records)
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2) if given.json else _table(found))


def _table(found: dict[str, Any]) -> str:
    lines = [
        f"round trips from {HOME}: " + ", ".join(f"{r} {ms:.0f} ms" for r, ms in found["rtt_ms"].items())
    ]
    for name in ("erasure", "withdrawal"):
        lines.append(f"{name:<12} p50 {found[name]['p50_ms']} ms, p99 {found[name]['p99_ms']} ms")
    revoked = found["revocation"]
    lines.append(f"revocation   {revoked['records']} records in {revoked['ms']} ms")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
