"""What regions say of themselves: metrics as documented, traces of one request, and no personal data in either."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from psycopg_pool import AsyncConnectionPool
from tests.cluster.api.conftest import Api
from tests.cluster.collector import Collector, collecting
from tests.cluster.conftest import Server, await_that

import acgs2
from acgs2.api.facts import Facts, Vital
from acgs2.api.metrics import GAUGES
from acgs2.local.loopback import loopback

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
CANARY = "canary-4f1b"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def otlp(collector: Collector) -> str:
    return collector.url


def attributes(span: Any) -> dict[str, Any]:
    plain = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        plain[attribute.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return plain


def traced(collector: Collector, trace_id: str, *names: str) -> dict[str, Any]:
    return await_that(
        lambda: (found := collector.spans(trace_id)) and set(names) <= set(found) and found, f"spans {names}"
    )


def no_canary_left(api: Api, collector: Collector) -> None:
    """Nothing that a caller sent is in what was sent to the collector, or in what is scraped."""
    assert collector.bodies
    assert not [body for body in collector.bodies if CANARY.encode() in body]
    for region in (WEST, CENTRAL):
        assert CANARY not in loopback().get(api.urls[region] + "/metrics").text


def test_a_request_is_one_trace_from_its_caller_to_the_pair(api: Api, collector: Collector) -> None:
    tenant = api.tenant("eu", WEST)
    trace_id, parent = uuid4().hex, uuid4().hex[:16]
    answer = api.call(
        WEST,
        "POST",
        "/api/v1/users",
        "eu",
        token=api.token(subject=f"{CANARY}-subject"),
        json={"tenant_id": tenant, "display_name": f"{CANARY}-body"},
        params={"name": f"{CANARY}-query"},
        headers={
            "traceparent": f"00-{trace_id}-{parent}-01",
            "tracestate": f"vendor={CANARY}-state",
            "baggage": f"name={CANARY}-baggage",
            "user-agent": f"{CANARY}-agent",
            "idempotency-key": f"{CANARY}-key",
            "x-forwarded-for": f"{CANARY}-address",
        },
    )
    assert answer.status_code == 201, answer.text
    found = traced(collector, trace_id, "POST /api/v1/users", "INSERT user_profile", "wait for pair")
    of, request = found["POST /api/v1/users"]
    assert of["service.name"] == "acgs2-region"
    assert (of["service.version"], of["cloud.region"]) == (acgs2.__version__, WEST)
    assert (request.parent_span_id.hex(), request.kind) == (parent, request.SPAN_KIND_SERVER)
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/api/v1/users",
        "http.response.status_code": 201,
        "acgs2.region": WEST,
        "acgs2.zone": "eu",
    }
    for name, kind, has in (
        (
            "INSERT user_profile",
            request.SPAN_KIND_CLIENT,
            {
                "db.system.name": "postgresql",
                "db.operation.name": "INSERT",
                "acgs2.entity": "user_profile",
            },
        ),
        ("wait for pair", request.SPAN_KIND_INTERNAL, {"acgs2.zone": "eu", "acgs2.peers": [CENTRAL]}),
    ):
        _, span = found[name]
        assert (span.parent_span_id, span.kind) == (request.span_id, kind)
        assert attributes(span) == has
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    no_canary_left(api, collector)


def test_refusals_say_why_and_nothing_that_was_sent(api: Api, collector: Collector) -> None:
    asked = {
        "POST /api/v1/tenants": ("/api/v1/tenants", f"{CANARY}-zone", 400, "zone-unknown"),
        "GET": (f"/{CANARY}-path", "eu", 404, "not-found"),
        "GET /api/v1/users/{record_id}": (f"/api/v1/users/{uuid4()}", "eu", 404, "record-unknown"),
    }
    traces = {}
    for name, (path, zone, status, _) in asked.items():
        traces[name] = uuid4().hex
        answer = api.call(
            WEST,
            name.split()[0],
            path,
            zone,
            headers={"traceparent": f"00-{traces[name]}-{'1' * 16}-01"},
            json={"name": f"{CANARY}-body"},
        )
        assert answer.status_code == status, answer.text
    for name, (_, zone, status, reference) in asked.items():
        _, span = traced(collector, traces[name], name)[name]
        has = attributes(span)
        assert (has["http.response.status_code"], has["acgs2.problem"]) == (status, reference)
        assert has.get("http.route", "") == "".join(name.split()[1:])
        assert has.get("acgs2.zone") == (zone if "users" in name else None)
    no_canary_left(api, collector)


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of every metric in the document."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\w, ]*) ?\|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: (kind, tuple(sorted(re.findall(r"\w+", labels)))) for name, kind, labels in rows}


def families(api: Api, region: str) -> dict[str, Metric]:
    answer = loopback().get(api.urls[region] + "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    made = text_string_to_metric_families(answer.text)
    return {f"{m.name}_total" if m.type == "counter" else m.name: m for m in made}


def samples(api: Api, region: str, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by those of its labels, in the order of the labels' names."""
    found = families(api, region)[name].samples
    return {tuple(value for _, value in sorted(s.labels.items())): s.value for s in found}


@pytest.fixture(scope="module", autouse=True)
def troubled(server: Server, databases: Mapping[str, str], api: Api) -> None:
    """A region with something to say in every metric: an incident, a conflict, a row in quarantine."""
    with server.connect(databases[WEST]) as conn:
        conn.execute(b"INSERT INTO acgs.incident (kind) VALUES ('put-refused'), ('put-refused')")
        conn.execute(
            b"INSERT INTO acgs.quarantine (reason, source, entity, kind, zone, residency, hlc_max, records)"
            b" VALUES ('clock-ahead', 'us-east-1', 'agent', 'put', 'us', '{}', 1, '[]')"
        )
        conn.execute(
            b"INSERT INTO acgs.conflict (entity, key, field, loser_hlc, loser_origin, winner_hlc, winner_origin, strategy, zone)"
            b" VALUES ('agent', gen_random_uuid(), 'name', 1, 'a', 2, 'b', 'merge', 'eu')"
        )


def test_what_is_exported_is_what_is_documented(api: Api) -> None:
    api.tenant("eu", WEST)
    assert api.call(WEST, "GET", "/nowhere").status_code == 404
    await_that(
        lambda: (found := families(api, WEST)) and all(found[name].samples for name in GAUGES),
        "every gauge to have a value",
    )
    exported = {}
    for name, family in families(api, WEST).items():
        labels = {tuple(sorted(set(s.labels) - {"le"})) for s in family.samples} or {("zone",)}
        assert len(labels) == 1, name
        exported[name] = (family.type, labels.pop())
    assert exported == documented()


def test_names_are_as_prometheus_wants_them(api: Api) -> None:
    for name, family in families(api, WEST).items():
        assert re.fullmatch(r"(acgs2|process)_[a-z0-9]+(_[a-z0-9]+)*", name)
        assert family.documentation.endswith(".")
        assert name.endswith("_total") == (family.type == "counter"), name
        words = set(name.split("_"))
        for abbreviated in ("ms", "us", "sec", "milliseconds", "minutes", "kb", "mb", "kilobytes", "percent"):
            assert abbreviated not in words, name
        assert not words & {"gauge", "counter", "histogram", "summary", "created", "sum", "bucket", "count"}
        if family.type == "histogram":
            assert name.endswith("_seconds")
        for unit in ("seconds", "bytes"):
            assert unit not in words or re.search(rf"_{unit}(_total)?$", name), name
        for sample in family.samples:
            assert not {"quantile", "job", "instance"} & set(sample.labels)
            assert ("le" in sample.labels) <= (family.type == "histogram")


def test_gauges_say_what_is(api: Api) -> None:
    assert samples(api, WEST, "acgs2_ready") == {(): 1}
    assert set(samples(api, WEST, "acgs2_check").values()) == {1}
    assert samples(api, WEST, "acgs2_peer_connected") == {(CENTRAL,): 1, (US,): 1}
    assert samples(api, WEST, "acgs2_link_missing") == {(CENTRAL,): 0, (US,): 0}
    assert samples(api, WEST, "acgs2_zone_alone") == {("eu",): 0}
    await_that(lambda: samples(api, WEST, "acgs2_incidents_open").get(("put-refused",), 0) >= 2, "incidents")
    assert samples(api, WEST, "acgs2_quarantined_rows")["clock-ahead",] >= 1
    lag = samples(api, WEST, "acgs2_replication_lag_seconds")
    assert set(lag) == {(p, source) for source in (CENTRAL, US) for p in ("50", "99")}
    assert all(0 <= seconds < 5 for seconds in lag.values())
    leaders = await_that(
        lambda: (
            (held := [samples(api, r, "acgs2_leader")[()] for r in (WEST, CENTRAL, US)])
            and sum(held)
            and held
        ),
        "a leader",
    )
    assert sum(leaders) == 1
    text = (
        loopback().get(api.urls[WEST] + "/metrics", headers={"accept": "application/openmetrics-text"}).text
    )
    assert text.endswith("# EOF\n")


def test_large_tables_are_estimated(server: Server, databases: Mapping[str, str], api: Api) -> None:
    for _ in range(3):
        api.tenant("eu", WEST)
    with server.connect(databases[WEST]) as conn:
        conn.execute(b"ANALYZE acgs.tenant")
        (held,) = conn.execute(b"SELECT count(*) FROM acgs.tenant WHERE zone = 'eu'").fetchone() or (0,)

    async def estimated() -> Any:
        async with AsyncConnectionPool(
            server.dsn(databases[WEST], "acgs_app"), min_size=1, open=False
        ) as pool:
            facts = Facts(pool, exact_bytes=0)
            try:
                return await facts.held(), await facts.vital()
            finally:
                await facts.close()

    found, vital = asyncio.run(estimated())
    assert found.records["tenant", "eu"] == pytest.approx(held, rel=0.05)
    assert isinstance(vital, Vital)
    assert not vital.read_only


def test_probes_share_a_look_and_a_region_that_lags_says_so(
    server: Server, databases: Mapping[str, str], api: Api
) -> None:
    url = api.urls[WEST]
    assert loopback().get(url + "/health/ready").json() == {"status": "ready"}
    body = loopback().get(url + "/health").json()
    assert all(body["checks"].values())
    assert set(body["lag_ms"]) <= {CENTRAL, US}
    stop = threading.Event()

    def be_late() -> None:
        with server.connect(databases[WEST]) as conn:
            while not stop.is_set():
                conn.execute(b"UPDATE acgs.incoming SET linked_at = '2020-01-01' WHERE peer = %s", (US,))
                conn.execute(
                    b"UPDATE acgs.link_lag SET lag_us = 11000000 WHERE source = %s AND lag_us < 11000000",
                    (US,),
                )
                stop.wait(0.05)

    late = threading.Thread(target=be_late)
    late.start()
    try:
        answer = await_that(
            lambda: (a := loopback().get(url + "/health/ready")).status_code == 503 and a, "it to say so"
        )
        assert answer.json() == {"status": "not-ready", "missing": ["lag"]}
        assert samples(api, WEST, "acgs2_check")["lag",] == 0
    finally:
        stop.set()
        late.join()
    await_that(lambda: loopback().get(url + "/health/ready").status_code == 200, "it to be ready again")


def test_with_the_database_away_a_region_still_says_how_it_is(
    server: Server, databases: Mapping[str, str], api: Api
) -> None:
    before = samples(api, US, "acgs2_records")
    assert before
    with server.connect("postgres") as admin:
        name = databases[US]
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        try:
            end = b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
            admin.execute(end, (name,))
            await_that(lambda: samples(api, US, "acgs2_database_up") == {(): 0}, "it to notice")
            assert samples(api, US, "acgs2_ready") == {(): 0}
            assert samples(api, US, "acgs2_records") == before
            began_s = time.monotonic()
            body = loopback().get(api.urls[US] + "/health").json()
            assert time.monotonic() - began_s < 3
            assert (body["status"], body["checks"]["database"]) == ("not-ready", False)
            assert loopback().get(api.urls[US] + "/health/live").status_code == 200
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    await_that(lambda: samples(api, US, "acgs2_database_up") == {(): 1}, "it to be back")
    await_that(lambda: loopback().get(api.urls[US] + "/health/ready").status_code == 200, "it to be ready")
