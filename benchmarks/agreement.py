"""Registers and lease over five members with distances between them, beside one locally flushed row.

    python benchmarks/agreement.py [--changes 200] [--rounds 3] [--json]

One proposer next to one of five voters, reached over links; the floor of a change is two round trips to the
third-nearest voter (a majority of five, itself among them). Taking over is timed from the holder's last renewal.
Where there is an etcd, five members of it at the same distances take turns with it: the proposer speaks to the
nearest, which leads them. The floor there is two round trips as well: one for the linearizable read, one for the
change. What an idle cluster's lease costs is counted in the voters' databases before anything else is done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg

from acgs2.consensus import EtcdRegister, Lease, PaxosRegister, Register
from acgs2.consensus.voters import DatabaseVoter
from acgs2.local.cluster import Cluster, up
from acgs2.local.links.config import LinksConfig, LinkSpec, RouteSpec
from acgs2.topology import Topology, locate

ME = "eu-west-1"


def registers(cluster: Cluster, me: str) -> tuple[PaxosRegister, dict[str, DatabaseVoter]]:
    state = cluster.state
    voters = {
        region: DatabaseVoter(
            state.dsn(region, "acgs_owner") if region == ME else state.link_dsn(ME, region, "acgs_link")
        )
        for region in state.topology.regions
    }
    return PaxosRegister(voters, me), voters


@contextmanager
def etcd(topology: Topology, folder: Path) -> Iterator[str | None]:
    """Run a member of etcd per region, as far from ours as the regions are; yields the URL of ours, which leads.

    None where there is no etcd. Members know each other by one URL each, whoever asks. What the leader sends goes
    over connections that others make to it, and their answers over those that it makes: with nothing before
    ours, and a whole round trip one way before each of the others, leader and others are as far apart as they are.
    """
    program = shutil.which("etcd")
    if program is None:
        yield None
        return
    with ExitStack() as stack:
        folder.mkdir()
        regions = list(topology.regions)
        client, listen, ways = _ports(regions), _ports(regions), _ports(regions)
        rtt_ms = {({n.a, n.b} - {ME}).pop(): n.rtt_ms for n in topology.links() if ME in (n.a, n.b)}
        routes = [
            RouteSpec(source=ME, target=r, service="etcd", listen_port=ways[r], target_port=listen[r])
            for r in rtt_ms
        ]
        links = [LinkSpec(a=ME, b=r, rtt_ms=2 * value) for r, value in rtt_ms.items()]
        config = LinksConfig(
            control_port=_ports(["links"])["links"], token="bench", routes=routes, links=links
        )
        (folder / "links.json").write_bytes(msgspec.json.encode(config))
        _run(stack, [sys.executable, "-m", "acgs2.local.links", str(folder / "links.json")], folder / "log")
        peers = {r: f"http://127.0.0.1:{ways[r] if r in rtt_ms else listen[r]}" for r in regions}
        for region in regions:
            url = f"http://127.0.0.1:{client[region]}"
            command = [program, "--name", region, "--data-dir", str(folder / region), "--logger", "zap"]
            command += ["--listen-client-urls", url, "--advertise-client-urls", url, "--log-level", "error"]
            command += ["--listen-peer-urls", f"http://127.0.0.1:{listen[region]}"]
            command += ["--initial-advertise-peer-urls", peers[region]]
            command += ["--initial-cluster", ",".join(f"{r}={peer}" for r, peer in peers.items())]
            # What etcd's own guide advises for such distances.
            command += ["--heartbeat-interval", "200", "--election-timeout", "2000"]
            _run(stack, command, folder / f"{region}.log")
        ours = f"http://127.0.0.1:{client[ME]}"
        _lead(ours)
        yield ours


def _run(stack: ExitStack, command: list[str], log: Path) -> None:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )
    stack.callback(process.wait)
    stack.callback(process.kill)


def _ports(names: list[str]) -> dict[str, int]:
    with ExitStack() as held:
        found = {}
        for name in names:
            sock = held.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            found[name] = sock.getsockname()[1]
        return found


def _lead(url: str) -> None:
    """Wait for a leader, and have the member at a URL lead."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        time.sleep(0.2)
        try:
            status = httpx.post(f"{url}/v3/maintenance/status", json={}, timeout=5).json()
            mine, leader = status["header"]["member_id"], status["leader"]
            if leader == mine:
                return
            members = httpx.post(f"{url}/v3/cluster/member/list", json={}, timeout=5).json()["members"]
            (there,) = next(m["clientURLs"] for m in members if m["ID"] == leader)
            httpx.post(f"{there}/v3/maintenance/transfer-leadership", json={"targetID": mine}, timeout=5)
        except (httpx.HTTPError, ValueError, KeyError, StopIteration):
            continue
    raise SystemExit("etcd does not come up")


def idle_calls_per_s(cluster: Cluster, for_s: float = 20.0) -> dict[str, float]:
    """Return how often a second an idle cluster's servers call its voters, by call."""
    query = b"SELECT funcname, sum(calls) FROM pg_stat_user_functions WHERE funcname LIKE 'vote_%' GROUP BY 1"
    with ExitStack() as stack:
        databases = [
            stack.enter_context(psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True))
            for region in cluster.state.topology.regions
        ]
        for conn in databases:
            conn.execute(b"ALTER SYSTEM SET track_functions = 'pl'")
            conn.execute(b"SELECT pg_reload_conf()")
        time.sleep(5)  # until the servers' sessions have read it, and what came up has settled
        counts: list[dict[str, float]] = []
        for _ in range(2):
            found: dict[str, float] = {}
            for conn in databases:
                for name, calls in conn.execute(query).fetchall():
                    found[name] = found.get(name, 0) + float(calls)
            counts.append(found)
            if len(counts) == 1:
                time.sleep(for_s)
    return {name: round((calls - counts[0].get(name, 0)) / for_s, 1) for name, calls in counts[1].items()}


async def measure(cluster: Cluster, changes: int, rounds: int, etcd_url: str | None) -> dict[str, Any]:
    """Return latencies of changes and of the baseline, operations a second over many keys, and takeovers."""
    register, voters = registers(cluster, "bench")
    compared: dict[str, Register] = {"": register}
    if etcd_url is not None:
        compared["etcd_"] = EtcdRegister([etcd_url], "bench", timeout_s=5)
    took: dict[str, list[float]] = {"baseline": []}
    async with await psycopg.AsyncConnection.connect(
        cluster.state.dsn(ME, "postgres"), autocommit=True
    ) as conn:
        await conn.execute(b"CREATE TABLE baseline (key text PRIMARY KEY, n bigint)")
        for _ in range(rounds):
            for number in range(changes):
                for name, one in compared.items():
                    for call, act in (("change", one.change), ("read", _read(one))):
                        began_s = time.perf_counter()
                        await act(f"bench/{number % 10}", lambda v: (v or 0) + 1)
                        took.setdefault(name + call, []).append((time.perf_counter() - began_s) * 1000)
                began_s = time.perf_counter()
                await conn.execute(
                    b"INSERT INTO baseline VALUES ('k', 1) ON CONFLICT (key) DO UPDATE SET n = baseline.n + 1"
                )
                took["baseline"].append((time.perf_counter() - began_s) * 1000)
    per_s = {}
    for name, one in compared.items():
        began_s = time.perf_counter()
        await asyncio.gather(*(_repeat(one, f"many/{n}", changes // 10) for n in range(8)))
        per_s[name] = round(8 * (changes // 10) / (time.perf_counter() - began_s), 1)
        if isinstance(one, EtcdRegister):
            await one.close()
    takeovers = [await _takeover(cluster, number) for number in range(rounds)]
    for voter in voters.values():
        await voter.close()
    nearest = sorted(n.rtt_ms for n in cluster.state.topology.links() if ME in (n.a, n.b))
    return {
        "floor_ms": round(2 * nearest[1], 1),
        **{name: _percentiles(values) for name, values in took.items()},
        **{f"{name}changes_per_s_8_keys": rate for name, rate in per_s.items()},
        "takeover_s_of_a_3_s_lease": [round(t, 2) for t in takeovers],
    }


def _read(register: Register) -> Callable[[str, Any], Awaitable[Any]]:
    return lambda key, _: register.read(key)


async def _repeat(register: Register, key: str, times: int) -> None:
    for _ in range(times):
        await register.change(key, lambda v: (v or 0) + 1)


async def _takeover(cluster: Cluster, number: int) -> float:
    """Return the seconds from a holder's last renewal until another holds the lease."""
    (one, first), (two, second) = registers(cluster, "one"), registers(cluster, "two")
    holder, taker = Lease(one, f"lease/{number}", "one", 3.0), Lease(two, f"lease/{number}", "two", 3.0)
    for _ in range(3):
        if not await holder.step() or await taker.step():
            raise SystemExit("two held one lease")
        await asyncio.sleep(1)
    began_s = time.perf_counter()
    await holder.step()
    taken = False
    while not taken:
        await asyncio.sleep(0.1)
        taken = await taker.step()
    took_s = time.perf_counter() - began_s
    for voter in (*first.values(), *second.values()):
        await voter.close()
    return took_s


def _percentiles(took_ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took_ms, n=100)
    return {"p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    folder.chmod(0o711)
    cluster = up(locate("local"), folder / "state")
    try:
        found = {"idle_voter_calls_per_s": idle_calls_per_s(cluster)}
        with etcd(cluster.state.topology, folder / "etcd") as url:
            found |= asyncio.run(measure(cluster, given.changes, given.rounds, url))
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
