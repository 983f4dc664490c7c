"""What is in force, by the API of real regions: constitution, halts, policies; who may change them and who not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.cluster.api.conftest import AMENDERS, Api
from tests.cluster.conftest import Server, await_that

from acgs2 import policy
from acgs2.local.loopback import loopback
from acgs2.policy import Constitution

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
REGIONS = [CENTRAL, WEST, US]


def reference(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


def halt(api: Api, region: str = WEST, token: str | None = None, **body: Any) -> httpx.Response:
    sent = {"scope": "tenant", "target": str(uuid4()), "reason": "a drill", **body}
    return api.call(
        region, "POST", "/api/v1/halts", token=token, json={k: v for k, v in sent.items() if v is not None}
    )


def resume(api: Api, number: str, by: str, region: str = WEST, **token: Any) -> httpx.Response:
    said = api.token(by, **token)
    return api.call(region, "POST", f"/api/v1/halts/{number}/resume", token=said, json={"wait": True})


def halts(api: Api, region: str, token: str | None = None) -> list[dict[str, Any]]:
    answer = api.call(region, "GET", "/api/v1/halts", token=token)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def nothing_halted(api: Api) -> Iterator[None]:
    """End whatever a test has halted."""
    yield
    for each in halts(api, WEST):
        for by in ("first", "second"):
            resume(api, each["id"], by)
    await_that(lambda: all(not halts(api, region) for region in REGIONS), "all halts to end")


def agent(api: Api, tenant: str, zone: str = "eu", region: str = WEST) -> str:
    body = {"tenant_id": tenant, "name": f"agent {uuid4()}"}
    made = api.call(region, "POST", "/api/v1/agents", zone, json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def test_regions_are_founded_on_one_constitution_and_say_so(api: Api) -> None:
    told = [loopback().get(f"{url}/health/governing") for url in api.urls.values()]
    assert [each.status_code for each in told] == [200, 200, 200]
    digests = {each.json()["constitution"]["digest"] for each in told}
    agents_token = api.token(str(uuid4()), "agent", str(uuid4()))
    shown = api.call(US, "GET", "/api/v1/constitution", token=agents_token).json()
    assert digests == {shown["digest"]} == {policy.of(shown["document"]).digest}
    assert shown["governing"]
    assert all(each["key"].startswith("ed25519:") for each in shown["document"]["amendment"]["amenders"])
    assert loopback().get(f"{api.urls[US]}/api/v1/constitution").status_code == 401
    regions = api.call(CENTRAL, "GET", "/api/v1/governance").json()
    assert regions["agreed"]
    assert sorted(regions["regions"]) == REGIONS


@pytest.mark.usefixtures("nothing_halted")
def test_a_halt_binds_all_regions_and_takes_two_operators_to_end(api: Api) -> None:
    made = halt(api, US, target=str(uuid4()), wait=True)
    assert made.status_code == 201, made.text
    body = made.json()
    assert body["binding"]["confirmed"] == REGIONS
    assert body["binding"]["binds_all_within_ms"] == 0
    assert not body["known_here"], "whoever mistypes an id is told that nobody knows it here"
    number = body["halt"]["id"]
    for region in REGIONS:
        assert [each["id"] for each in halts(api, region)] == [number]
    first = resume(api, number, "ann", CENTRAL)
    assert (first.status_code, first.json()["outcome"]) == (200, "requested")
    assert [each["by"] for each in halts(api, US)[0]["resumes"]] == ["ann"]
    again = resume(api, number, "ann", US)
    assert (again.status_code, reference(again)) == (409, "second-operator-needed")
    assert len(halts(api, WEST)) == 1
    second = resume(api, number, "bo", US)
    assert (second.status_code, second.json()["outcome"]) == (200, "resumed")
    assert [halts(api, region) for region in REGIONS] == [[], [], []]
    gone = resume(api, number, "cy")
    assert (gone.status_code, reference(gone)) == (404, "halt-unknown")


@pytest.mark.usefixtures("nothing_halted")
def test_who_may_halt_and_resume_and_who_not(api: Api) -> None:
    ours, theirs = api.tenant(), api.tenant()
    mine, other = agent(api, ours), agent(api, theirs)
    service = api.token("worker", "service", ours)
    for token, body, status, says in [
        (api.token(mine, "agent", ours), {"scope": "agent", "target": mine}, 403, "role-not-allowed"),
        (api.token("ann", "approver", ours), {"target": ours}, 403, "role-not-allowed"),
        (api.token("ann", "auditor"), {"target": ours}, 403, "role-not-allowed"),
        (api.token("robot", "service"), {"target": ours}, 403, "role-not-allowed"),
        (api.token("op", "operator", ours), {"target": ours}, 403, "role-not-allowed"),
        (service, {"target": theirs}, 403, "halt-not-yours"),
        (service, {"scope": "all", "target": None}, 403, "halt-not-yours"),
        (service, {"scope": "agent", "target": other}, 404, "agent-unknown"),
        (service, {"scope": "agent", "target": ours}, 404, "agent-unknown"),
        (service, {"scope": "agent", "target": None}, 403, "halt-not-yours"),
    ]:
        refused = halt(api, token=token, **body)
        assert (refused.status_code, reference(refused)) == (status, says), refused.text
    assert halts(api, WEST) == []
    numbers = []
    for token, body in [
        (service, {"target": ours}),
        (service, {"scope": "agent", "target": mine}),
        (None, {"scope": "agent", "target": other}),
    ]:
        made = halt(api, token=token, wait=True, **body)
        assert made.status_code == 201, made.text
        assert made.json()["known_here"]
        numbers.append(made.json()["halt"]["id"])
    assert [each["id"] for each in halts(api, WEST, service)] == numbers[:2], "a tenant sees its own"
    for role, tenant in [
        ("agent", ours),
        ("service", ours),
        ("service", None),
        ("approver", None),
        ("operator", ours),
    ]:
        refused = resume(api, numbers[0], "ann", role=role, tenant=tenant)
        assert (refused.status_code, reference(refused)) == (403, "role-not-allowed")
    assert all(each["resumes"] == [] for each in halts(api, WEST))


@pytest.mark.usefixtures("nothing_halted")
def test_a_halt_that_is_repeated_is_one_and_an_id_means_one_halt(api: Api) -> None:
    target, number = str(uuid4()), str(uuid4())
    first = halt(api, WEST, target=target)
    again = halt(api, US, target=target)
    assert first.json()["halt"] == again.json()["halt"]
    named = halt(api, WEST, target=target, id=number)
    assert named.json()["halt"]["id"] == number
    assert halt(api, US, target=target, id=number).json()["halt"] == named.json()["halt"]
    other = halt(api, WEST, target=str(uuid4()), id=number)
    assert (other.status_code, reference(other)) == (409, "halt-id-reused")
    await_that(lambda: len(halts(api, WEST)) == 2, "the two halts")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scope": "galaxy"}, 400),
        ({"target": "me"}, 400),
        ({"target": None}, 400),
        ({"scope": "all"}, 400),
        ({"reason": ""}, 400),
        ({"reason": "  "}, 400),
        ({"reason": "a\x00b"}, 400),
        ({"reason": "x" * 2001}, 400),
        ({"reason": None}, 400),
        ({"by": "somebody else"}, 400),
        ({"id": "7"}, 400),
    ],
)
def test_a_halt_that_says_nothing_clear_is_refused(api: Api, body: dict[str, Any], status: int) -> None:
    answer = halt(api, **body)
    assert answer.status_code == status, answer.text
    assert halts(api, WEST) == []


def in_force(api: Api, region: str = WEST) -> tuple[Constitution, dict[str, Any]]:
    document = api.call(region, "GET", "/api/v1/constitution").json()["document"]
    return policy.of(document), document


def amended(document: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**document, "version": document["version"] + 1, **changes}


def signed(current: Constitution, document: Mapping[str, Any], *names: str) -> list[dict[str, str]]:
    proposed = policy.of(document)
    signatures = [policy.amendment.sign(current, proposed, name, AMENDERS[name]) for name in names]
    return [{"amender": each.amender, "signature": each.signature} for each in signatures]


def submit(
    api: Api, document: Any, signatures: Any, region: str = WEST, token: str | None = None
) -> httpx.Response:
    body = {"document": document, "signatures": signatures, "wait": True}
    return api.call(region, "POST", "/api/v1/constitution/amendments", token=token, json=body)


EVE, FAY, GIL = AMENDERS


def test_an_amendment_with_enough_signatures_is_in_force_everywhere(api: Api) -> None:
    current, document = in_force(api)
    wanted = amended(document, preamble="Amended.")
    done = submit(api, wanted, signed(current, wanted, EVE, GIL), US)
    assert done.status_code == 200, done.text
    assert done.json()["amended"]
    assert done.json()["binding"]["confirmed"] == REGIONS
    for region in REGIONS:
        assert in_force(api, region)[1] == wanted
        assert policy.of(wanted).digest in loopback().get(f"{api.urls[region]}/health").text
    again = submit(api, wanted, signed(current, wanted, EVE, GIL))
    assert not again.json()["amended"], "the same amendment again changes nothing"
    versions = api.call(WEST, "GET", "/api/v1/constitution/versions").json()
    assert [each["version"] for each in versions][:2] == [current.version + 1, current.version]
    old = api.call(WEST, "GET", "/api/v1/constitution", params={"digest": current.digest}).json()
    assert (old["document"], old["governing"]) == (document, False)


def test_amendments_that_nobody_may_make_are_refused_and_nothing_changes(api: Api) -> None:
    current, document = in_force(api)
    wanted = amended(document, preamble="Mine now.")
    good = signed(current, wanted, EVE, FAY)
    other = signed(current, amended(document, preamble="Another."), EVE, FAY)
    stranger = {"amender": "mallory@acgs2.example", "signature": good[0]["signature"]}
    forged = {"amender": GIL, "signature": good[0]["signature"]}
    takeover = amended(
        document,
        amendment={
            "approvals": 1,
            "amenders": [{"name": "mallory", "key": document["amendment"]["amenders"][0]["key"]}],
        },
    )
    unfounded = amended(document, amendment={"approvals": 1, "amenders": [{"name": "eve", "key": "local"}]})
    for body, signatures, status, says in [
        (wanted, [], 409, "signatures-missing"),
        (wanted, good[:1], 409, "signatures-missing"),
        (wanted, [good[0], good[0]], 403, "signer-repeated"),
        (wanted, [good[0], stranger], 403, "signer-unknown"),
        (wanted, [*good, stranger], 403, "signer-unknown"),
        (wanted, [good[0], forged], 403, "signature-invalid"),
        (wanted, other, 403, "signature-invalid"),
        (takeover, [{"amender": "mallory", "signature": good[0]["signature"]}], 403, "signer-unknown"),
        ({**wanted, "version": current.version + 2}, good, 409, "version-not-next"),
        ({**wanted, "id": "0123456789abcdef"}, good, 409, "another-constitution"),
        (unfounded, good, 409, "amender-without-key"),
        ({**wanted, "rules": {}}, good, 400, "constitution-invalid"),
        ({}, good, 400, "constitution-invalid"),
    ]:
        refused = submit(api, body, signatures)
        assert (refused.status_code, reference(refused)) == (status, says), refused.text
    for token in (
        api.token("a", "agent", str(uuid4())),
        api.token("s", "service"),
        api.token("o", "operator", str(uuid4())),
    ):
        refused = submit(api, wanted, good, token=token)
        assert (refused.status_code, reference(refused)) == (403, "role-not-allowed")
    assert [in_force(api, region)[1] for region in REGIONS] == [document] * 3


def test_an_amendment_is_not_made_again_once_another_followed(api: Api) -> None:
    current, document = in_force(api)
    first = amended(document, preamble="First.")
    signatures = signed(current, first, EVE, FAY)
    assert submit(api, first, signatures).json()["amended"]
    second = amended(first, preamble="Second.")
    assert submit(api, second, signed(policy.of(first), second, FAY, GIL)).json()["amended"]
    replayed = submit(api, first, signatures)
    assert (replayed.status_code, reference(replayed)) == (409, "version-not-next")
    relabelled = {**first, "version": second["version"] + 1}
    refused = submit(api, relabelled, signatures)
    assert (refused.status_code, reference(refused)) == (403, "signature-invalid")
    assert in_force(api)[1] == second


def test_of_concurrent_amendments_exactly_one_wins(api: Api) -> None:
    current, document = in_force(api)
    wanted = [amended(document, preamble=f"Number {n}.") for n in range(6)]

    def attempt(n: int) -> httpx.Response:
        return submit(api, wanted[n], signed(current, wanted[n], EVE, GIL), REGIONS[n % 3])

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(attempt, range(6)))
    won = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    assert len(won) == 1, [answer.text for answer in answers]
    assert {reference(a) for n, a in enumerate(answers) if n not in won} <= {"version-not-next", "contended"}
    await_that(lambda: all(in_force(api, r)[1] == wanted[won[0]] for r in REGIONS), "all regions to go by it")


FORBID = '@id("no-gossip") forbid (principal, action, resource) when { context.message_type == "gossip" };\n'


def test_platform_policies_are_replaced_whole_and_only_on_what_was_seen(api: Api) -> None:
    path = "/api/v1/policies/platform"
    before = api.call(WEST, "GET", path)
    etag, text = before.headers["etag"], before.json()["policies"]
    assert api.call(WEST, "PUT", path, json={"policies": FORBID}).status_code == 428
    stale = api.call(WEST, "PUT", path, json={"policies": FORBID}, headers={"if-match": '"0-0"'})
    assert (stale.status_code, reference(stale)) == (412, "version-mismatch")
    wrong = api.call(WEST, "PUT", path, json={"policies": text + "permit ("}, headers={"if-match": etag})
    assert (wrong.status_code, reference(wrong)) == (400, "policy-invalid")
    assert f":{len(text.splitlines()) + 1}:" in wrong.json()["detail"], "the line is named"
    for token in (
        api.token("s", "service"),
        api.token("s", "service", str(uuid4())),
        api.token("a", "auditor"),
    ):
        refused = api.call(
            WEST, "PUT", path, json={"policies": FORBID}, token=token, headers={"if-match": etag}
        )
        assert (refused.status_code, reference(refused)) == (403, "role-not-allowed")
    assert api.call(US, "GET", path).json() == before.json()
    body = {"policies": text + FORBID, "wait": True}
    done = api.call(US, "PUT", path, json=body, headers={"if-match": etag})
    assert done.status_code == 200, done.text
    assert done.json()["binding"]["confirmed"] == REGIONS
    for region in REGIONS:
        shown = api.call(region, "GET", path)
        assert (shown.json()["policies"], shown.headers["etag"]) == (text + FORBID, done.headers["etag"])
    repeated = api.call(US, "PUT", path, json=body, headers={"if-match": etag})
    assert (repeated.status_code, repeated.headers["etag"]) == (200, done.headers["etag"]), "it is so already"


def test_an_amendment_under_which_policies_in_force_could_not_be_used_is_refused(api: Api) -> None:
    path = "/api/v1/policies/platform"
    before = api.call(WEST, "GET", path)
    held = before.json()["policies"] + (
        '@id("ask-on-call") @deliberate("on-call") forbid (principal, action, resource) '
        'when { context.message_type == "page" };\n'
    )
    put = api.call(
        WEST, "PUT", path, json={"policies": held, "wait": True}, headers={"if-match": before.headers["etag"]}
    )
    assert put.status_code == 200, put.text
    current, document = in_force(api)
    groups = {name: group for name, group in document["groups"].items() if name != "on-call"}
    wanted = amended(document, groups=groups)
    refused = submit(api, wanted, signed(current, wanted, EVE, GIL))
    assert (refused.status_code, reference(refused)) == (400, "policy-invalid")
    assert in_force(api)[1] == document


def test_a_tenants_policies_are_its_services_to_set(api: Api) -> None:
    ours, theirs = api.tenant(), api.tenant()
    path, service = f"/api/v1/policies/{ours}", api.token("worker", "service", ours)

    def put(body: Any, token: str = service, zone: str | None = "eu", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return api.call(WEST, "PUT", path, zone, token=token, json=body, headers=sent)

    assert api.call(WEST, "GET", path, token=service).status_code == 404
    for token, status in [
        (api.token(str(uuid4()), "agent", ours), 403),
        (api.token("ann", "approver", ours), 403),
        (api.token("robot", "service"), 403),
        (api.token("worker", "service", theirs), 404),
    ]:
        assert put({"policies": FORBID}, token).status_code == status
    assert put({"policies": FORBID}, zone=None).status_code == 400
    assert reference(put({"policies": "forbid (principal"})) == "policy-invalid"
    assert (
        reference(put({"policies": FORBID.replace("context.message_type", "context.mood")}))
        == "policy-invalid"
    )
    assert (
        reference(put({"policies": FORBID, "groups": {"g": {"approvals": 2, "members": ["ann"]}}}))
        == "groups-invalid"
    )
    made = put({"policies": FORBID, "groups": {"leads": {"approvals": 1, "members": ["ann"]}}})
    assert made.status_code == 201, made.text
    assert made.json()["policy_version"] == 1
    twice = {"policies": FORBID + FORBID.replace("no-gossip", "twice")}
    assert put(twice).status_code == 428, "it is there already"
    changed = put(twice, if_match=made.headers["etag"])
    assert (changed.status_code, changed.json()["policy_version"]) == (200, 2), changed.text
    assert put({"policies": FORBID}, if_match=made.headers["etag"]).status_code == 412
    by_operator = put({"policies": FORBID}, api.token(), if_match=changed.headers["etag"])
    assert by_operator.status_code == 200, by_operator.text
    await_that(
        lambda: api.call(CENTRAL, "GET", path, token=service).json().get("policy_version") == 3,
        "the policies to arrive in the other region",
    )
    assert api.call(WEST, "GET", path, token=api.token("w", "service", theirs)).status_code == 404


def test_every_version_is_noted_with_a_leaf_before_anything_is_done_by_it(
    api: Api, server: Server, databases: Mapping[str, str]
) -> None:
    halt(api, US, wait=True)
    for each in halts(api, WEST):
        resume(api, each["id"], "first")
        resume(api, each["id"], "second")
    known = {}
    for region, database in databases.items():
        with server.connect(database) as conn:
            rows = conn.execute(
                b"SELECT kind, version, digest, bound_at >= learned_at FROM acgs.in_force ORDER BY kind, version"
            ).fetchall()
            leaves = conn.execute(
                b"SELECT kind, body FROM acgs.audit_leaf WHERE kind LIKE '%-in-force'"
            ).fetchall()
        assert all(bound for *_, bound in rows)
        said = {
            (kind.removesuffix("-in-force"), json.loads(body)["version"]): json.loads(body)
            for kind, body in leaves
        }
        assert {key: body["digest"] for key, body in said.items()} == {(k, v): d for k, v, d, _ in rows}
        assert len(leaves) == len(rows), "one leaf each"
        known[region] = {(kind, version): digest for kind, version, digest, _ in rows}
    newest = [{kind: max(v for k, v in found if k == kind) for kind, _ in found} for found in known.values()]
    assert newest[0] == newest[1] == newest[2]
    everywhere = set.intersection(*(set(found) for found in known.values()))
    assert len(everywhere) > 3
    assert all(len({found[key] for found in known.values()}) == 1 for key in everywhere)
