"""Each check on a small history that is right, and on the same one broken in exactly one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from acgs2.drill.checks import judge
from acgs2.drill.history import Fault, History, Loss, Operation, read_history
from acgs2.drill.states import Final
from acgs2.model import entities

A, B, C = "eu-west-1", "eu-central-1", "us-east-1"
KEY, CONFIG, EVENT, TENANT = "key-u", "key-c", "key-e", "key-t"
ORIGIN = f"{A}#00000001"
_NUMBERS = count()


def op(kind: str, at_s: float = 1.0, region: str = A, outcome: str = "ok", **more: Any) -> Operation:
    """An operation that took half a second; what is unknown has no end."""
    given: dict[str, Any] = {"entity": "user_profile", "key": KEY, "zone": "eu", "client": "c"} | more
    ends_s = float("inf") if outcome == "info" else at_s + 0.5
    return Operation(
        number=next(_NUMBERS),
        kind=kind,
        region=region,
        invoked_s=at_s,
        completed_s=ends_s,
        outcome=outcome,
        **given,
    )  # type: ignore[arg-type]


def read(
    at_s: float, region: str = A, entity: str = "user_profile", key: str = KEY, **record: Any
) -> Operation:
    return op("read", at_s, region, entity=entity, key=key, answer={"status": 200, "record": record})


def failed_read(at_s: float, problem: str, region: str = A) -> Operation:
    return op("read", at_s, region, "fail", answer={"problem": problem})


CREATE = op("create", 0.0, sent={"display_name": "~user_profile/eu.c.0+new~"})


def user(**columns: Any) -> dict[str, Any]:
    row = {f.name: None for f in entities()["user_profile"].fields}
    row |= {
        "display_name": "~user_profile/eu.c.0+new~",
        "preferences": [],
        "login_count": 0,
        "tenant_id": TENANT,
    }
    return _row(KEY) | row | columns


def _row(key: str) -> dict[str, Any]:
    return {
        "key": key,
        "zone": "eu",
        "residency": [A, B],
        "sent_to": [A, B],
        "hlc": 1,
        "origin": ORIGIN,
        "vv": {},
        "erased": False,
        "rights": {},
        "meta": {},
    }


def config(value: str, version: int) -> dict[str, Any]:
    return _row(CONFIG) | {"tenant_id": TENANT, "config_version": version, "settings": {"is": value}}


def event(action: str) -> dict[str, Any]:
    row = {f.name: None for f in entities()["audit_event"].fields}
    return _row(EVENT) | row | {"tenant_id": TENANT, "actor": "c", "action": action}


def zone() -> dict[str, Any]:
    row = _row("z") | {"zone": "*", "residency": [A, B, C], "name": "eu", "regulation": "gdpr"}
    return row | {"regions": [A, B], "pair": [A, B]}


def final(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    *,
    pairs: Mapping[str, tuple[str, ...]] | None = None,
    **more: Any,
) -> Final:
    """Both home regions hold these rows, of entity and key; or as `held` says, region by region."""
    held: dict[str, dict[str, dict[str, Any]]] = {}
    for region in (A, B, C):
        held[region] = {entity: {} for entity in entities()}
        held[region]["zone"] = {"z": zone()}
        for entity, found in (rows or {}).items():
            held[region][entity] |= {k: dict(r) for k, r in found.items() if region in r["residency"]}
    for region, found in more.pop("held", {}).items():
        for entity, changed in found.items():
            held[region][entity] |= changed
    return Final(
        held, pairs=pairs or {"eu": (A, B)}, homes={"eu": (A, B)}, at="2026-01-01T00:00:00+00:00", **more
    )


def users(**columns: Any) -> dict[str, dict[str, dict[str, Any]]]:
    return {"user_profile": {KEY: user(**columns)}}


def found(operations: list[Operation], states: Final, *losses: Loss) -> set[str]:
    return {broken.check for broken in judge(History.of(operations, losses), states)}


def test_a_created_record_is_there_or_excused_by_the_only_disk_that_had_it() -> None:
    assert found([CREATE], final(users())) == set()
    assert found([CREATE], final()) == {"created"}
    assert found([replace(CREATE, outcome="info")], final()) == set()
    gone = Loss(A, at_s=2.0)
    assert found([CREATE], final(), gone) == {"created"}, "the other of the pair had it"
    assert found([CREATE], final(), replace(gone, exposed=("eu",))) == set()
    assert found([CREATE], final(pairs={"eu": ()}), gone) == set()
    assert found([CREATE], final(pairs={"eu": ()}), replace(gone, region=B)) == {"created"}
    assert found([CREATE], final(pairs={"eu": ()}), replace(gone, at_s=-1.0)) == {"created"}
    spared = replace(gone, survivors={"user_profile": {KEY: [user()]}})
    assert found([CREATE], final(pairs={"eu": ()}), spared) == {"created"}


def test_regions_that_may_hold_a_record_have_the_same() -> None:
    assert found([CREATE], final(users(), held={B: {"user_profile": {KEY: user(locale="x")}}})) >= {
        "agreement"
    }
    states = final(users())
    del states.held[B]["user_profile"][KEY]  # type: ignore[attr-defined]
    assert found([CREATE], states) == {"agreement", "misheld"}


def test_what_one_of_a_pair_acknowledged_the_other_has_when_it_dies() -> None:
    ops = [CREATE, op("increment", 1, sent={"by": 2})]
    states = final(users(login_count=2))

    def when(*rows: dict[str, Any], **more: Any) -> set[str]:
        had = {"user_profile": {KEY: list(rows)}}
        death = replace(Loss(A, 3.0, answered=(B, C), survivors=had), **more)
        return {b.check for b in judge(History.of(ops, deaths=[death]), states)}

    both = user(meta={"login_count": {ORIGIN: [1, 2]}})
    assert when(both) == set()
    assert when() == {"durable"}
    assert when(user()) == {"durable"}
    assert when(answered=(C,)) == when(exposed=("eu",)) == when(region=B) == when(at_s=0.2) == set()
    # It may have left the zone, and so the pair, with its tenant.
    ops.append(op("move", 2, entity="tenant", key=TENANT, sent={"to_zone": "us"}))
    assert "durable" not in when()
    assert "durable" in when(at_s=1.8)


def test_a_counter_is_between_what_was_acknowledged_and_what_may_have_happened() -> None:
    ops = [
        CREATE,
        op("increment", 1, sent={"by": 2}, idempotency_key="1", outcome="info"),
        op("increment", 2, sent={"by": 2}, idempotency_key="1"),
        op("increment", 3, B, sent={"by": 3}, idempotency_key="2"),
        op("increment", 4, B, sent={"by": 4}, idempotency_key="3", outcome="info"),
        op("increment", 5, B, sent={"by": 5}, idempotency_key="4", outcome="fail"),
    ]
    for value, expected in (
        (5, set()),
        (9, set()),
        (4, {"counters"}),
        (10, {"counters"}),
        (11, {"counters"}),
    ):
        assert found(ops, final(users(login_count=value))) == expected, value


def test_a_counter_loses_only_what_the_lost_disk_alone_had() -> None:
    ops = [CREATE, op("increment", 1, sent={"by": 2}), op("increment", 2, sent={"by": 3})]
    had = user(meta={"login_count": {ORIGIN: [1, 2]}})
    loss = Loss(A, 3.0, survivors={"user_profile": {KEY: [had]}})
    unpaired = {"eu": ()}
    assert found(ops, final(users(login_count=2), pairs=unpaired), loss) == set()
    assert found(ops, final(users(login_count=1), pairs=unpaired), loss) == {"counters"}
    assert found(ops, final(users(login_count=2)), loss) == {"counters"}
    # A repeat after its region forgot the first try may be carried out again; else it may not.
    twice = [
        CREATE,
        op("increment", 1, sent={"by": 2}, idempotency_key="1", outcome="info"),
        op("increment", 4, sent={"by": 2}, idempotency_key="1"),
    ]
    assert found(twice, final(users(login_count=4)), Loss(A, 3.0)) == set()
    assert found(twice, final(users(login_count=4))) == {"counters"}


def test_an_element_is_as_its_last_change_left_it_where_the_last_is_known() -> None:
    add, remove = op("add", 1, sent={"element": "e"}), op("remove", 3, sent={"element": "e"})
    there, gone = final(users(preferences=["e"])), final(users())
    assert found([CREATE, add], there) == set()
    assert found([CREATE, add], gone) == {"sets"}
    assert found([CREATE, add, remove], gone) == set()
    assert found([CREATE, add, remove], there) == {"sets"}
    concurrent = replace(remove, region=B)
    assert found([CREATE, add, concurrent], gone) == found([CREATE, add, concurrent], there) == set()
    unknown = replace(remove, outcome="info")
    assert found([CREATE, add, unknown], gone) == found([CREATE, add, unknown], there) == set()
    assert found([CREATE, add, replace(remove, outcome="fail")], gone) == {"sets"}


def test_a_value_is_one_that_was_written_and_not_overwritten_by_its_own_region() -> None:
    first = op("set", 1, sent={"field": "locale", "value": "1"})
    second = op("set", 3, sent={"field": "locale", "value": "2"})
    assert found([CREATE, first, second], final(users(locale="2"))) == set()
    assert found([CREATE, first, second], final(users(locale="1"))) == {"latest"}
    assert found([CREATE, first, second], final(users(locale="3"))) == {"latest"}
    assert found([CREATE, first, second], final(users())) == {"latest"}
    assert found([CREATE, first, replace(second, region=B)], final(users(locale="1"))) == set()
    assert found([CREATE, first, replace(second, outcome="info")], final(users(locale="1"))) == set()


def cas(
    value: str, expects: int, based_on: str, at_s: float, region: str = A, outcome: str = "ok"
) -> Operation:
    sent = {"value": value, "expects": expects, "based_on": based_on}
    more = {"entity": "tenant_config", "key": CONFIG, "sent": sent, "idempotency_key": value}
    return op("cas", at_s, region, outcome, **more)


MADE = op("create", 0.0, entity="tenant_config", key=CONFIG, sent={"settings": {"is": "new"}})


def configs(value: str, version: int, **more: Any) -> Final:
    return final({"tenant_config": {CONFIG: config(value, version)}}, **more)


def test_an_acknowledged_version_is_final_or_built_on_or_on_record() -> None:
    chain = [MADE, cas("a", 1, "new", 1), cas("b", 2, "a", 3)]
    assert found(chain, configs("b", 3)) == set()
    rival = [MADE, cas("a", 1, "new", 1), cas("b", 1, "new", 1, B)]
    assert found(rival, configs("b", 2)) == {"compared-and-set"}
    loser = {"entity": "tenant_config", "key": CONFIG, "loser_value": {"settings": {"is": "a"}}}
    assert found(rival, configs("b", 2, conflicts={B: [loser]})) == set()
    assert found([rival[0], replace(rival[1], outcome="info"), rival[2]], configs("b", 2)) == set()


def test_one_region_gives_a_version_once() -> None:
    twice = [MADE, cas("a", 1, "new", 1), cas("b", 1, "a", 3), cas("c", 2, "b", 5)]
    assert found(twice, configs("c", 3)) == {"compared-and-set"}
    assert found(twice, configs("c", 3), Loss(A, 2.0)) == set(), "another life may give it again"


def test_an_event_stays_as_it_was_written() -> None:
    sent = {"actor": "c", "action": "~audit_event/eu.c.0+new~"}
    ops = [op("append", entity="audit_event", key=EVENT, sent=sent)]
    assert found(ops, final({"audit_event": {EVENT: event("~audit_event/eu.c.0+new~")}})) == set()
    assert found(ops, final({"audit_event": {EVENT: event("looked")}})) == {"appended"}
    assert found(ops, final()) == {"created"}


def test_what_was_erased_stays_so_and_nothing_else_is() -> None:
    erase = op("erase", 2)
    assert found([CREATE, erase], final(users(erased=True))) == set()
    assert found([CREATE, erase], final(users())) == {"erased"}
    assert found([CREATE], final(users(erased=True))) == {"erased"}
    assert found([CREATE, replace(erase, outcome="info")], final(users())) == set()
    assert found([CREATE, erase], final(users()), Loss(A, 3.0, exposed=("eu",))) == set()


def test_a_region_does_not_go_behind_what_it_showed_or_acknowledged() -> None:
    ops = [CREATE, op("increment", 1, sent={"by": 1}), read(2, login_count=1), read(3, login_count=1)]
    good = final(users(login_count=1))
    assert found(ops, good) == set()
    assert found([*ops, read(4, login_count=0)], good) == {"sessions"}
    assert found([*ops, read(4, B, login_count=0)], good) == set(), "another region may be behind"
    assert found([*ops, read(4, login_count=0)], good, Loss(A, 3.7)) == set()
    assert found([*ops, failed_read(4, "record-unknown")], good) == {"sessions"}
    assert found([*ops, failed_read(4, "database-unavailable")], good) == set()


def test_reads_follow_writes_of_values_elements_versions_and_erasures() -> None:
    first = op("set", 1, sent={"field": "locale", "value": "1"})
    second = op("set", 2, sent={"field": "locale", "value": "2"})
    good = final(users(locale="2"))
    assert found([CREATE, first, second, read(3, locale="2")], good) == set()
    assert found([CREATE, first, second, read(3, locale="1")], good) == {"sessions"}
    assert found([CREATE, first, second, read(3, locale="x")], good) == {"sessions"}
    add = op("add", 1, sent={"element": "e"})
    there = final(users(preferences=["e"]))
    assert found([CREATE, add, read(2, preferences=["e"])], there) == set()
    assert found([CREATE, add, read(2, preferences=[])], there) == {"sessions"}
    old, new = (
        lambda at, v=v: read(at, entity="tenant_config", key=CONFIG, config_version=v) for v in (1, 2)
    )
    assert found([MADE, old(1), new(2)], configs("new", 1)) == set()
    assert found([MADE, new(1), old(2)], configs("new", 1)) == {"sessions"}
    erase, tomb = op("erase", 1), final(users(erased=True))
    assert found([CREATE, erase, failed_read(2, "erased")], tomb) == set()
    assert found([CREATE, erase, read(2, locale=None)], tomb) == {"sessions"}


def test_no_text_is_where_its_record_may_not_be() -> None:
    name = "user_profile/eu.c.0"
    allowed = {A: {name: ["acgs.user_profile"]}, B: {name: ["acgs.journal_default"]}}
    assert found([CREATE], final(users(), traces=allowed)) == set()
    astray = {C: {name: ["acgs.quarantine"]}}
    assert found([CREATE], final(users(), traces=astray)) == {"residency"}
    assert found([CREATE], final(users(), traces={A: {"user_profile/x": ["acgs.conflict"]}})) == {"residency"}
    erased = [CREATE, op("erase", 2)]
    assert found(erased, final(users(erased=True), traces=allowed)) == {"residency"}


def consent(
    grants: Mapping[str, Any], withdrawals: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, Any]]]:
    row = _row("key-k") | {f.name: None for f in entities()["consent"].fields}
    row |= {"tenant_id": TENANT, "subject_id": KEY, "to_region": C, "grants": grants}
    return {
        "consent": {"key-k": row | {"meta": {"withdrawals": withdrawals}, "withdrawals": len(withdrawals)}}
    }


def test_the_last_act_of_consent_is_in_force() -> None:
    sent = {"subject_id": KEY, "to_region": C}
    grant = op("grant", 1, entity="consent", sent=sent)
    withdraw = op("withdraw", 3, entity="consent", sent=sent)
    given, taken = consent({ORIGIN: {}}, {}), consent({ORIGIN: {}}, {ORIGIN: [1, 1]})
    assert found([CREATE, grant], final(users() | given)) == set()
    assert found([CREATE, grant, withdraw], final(users() | taken)) == set()
    assert found([CREATE, grant, withdraw], final(users() | given)) == {"acts"}
    assert found([CREATE, grant], final(users() | taken)) == {"acts"}
    assert found([CREATE, grant, replace(withdraw, region=B)], final(users() | taken)) == set()


def test_a_revoked_transfer_stays_revoked_and_a_moved_tenant_moved() -> None:
    register = op("register", 1, entity="transfer", key="t 0")
    revoke = op("revoke", 2, entity="transfer", key="t 0")
    row = _row("key-x") | {f.name: None for f in entities()["transfer"].fields}
    row |= {"zone": "*", "residency": [A, B, C], "note": "t 0", "from_zone": "us", "to_region": B}
    row |= {"entities": [], "instrument": "scc"}
    moment = "2025-01-01T00:00:00+00:00"
    assert found([register, revoke], final({"transfer": {"key-x": row | {"revoked": moment}}})) == set()
    assert found([register, revoke], final({"transfer": {"key-x": row}})) == {"acts"}
    assert found([register], final()) == {"acts"}
    move = op("move", 1, entity="tenant", key=TENANT, sent={"to_zone": "eu"})
    tenant = _row(TENANT) | {f.name: None for f in entities()["tenant"].fields}
    assert found([move], final({"tenant": {TENANT: tenant}})) == set()
    elsewhere = replace(move, sent={"to_zone": "us"})
    assert found([elsewhere], final({"tenant": {TENANT: tenant}})) == {"acts"}


def test_an_answer_that_is_a_bug_is_one() -> None:
    assert found([op("read", outcome="fail", answer={"status": 500, "problem": "internal"})], final()) == {
        "unforeseen"
    }


def test_a_history_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    for outcome in ("ok", "fail", "info"):
        number = history.invoke("c", A, "eu", "set", "user_profile", KEY, sent={"value": outcome})
        history.complete(number, outcome, {"status": 1})  # type: ignore[arg-type]
    history.invoke("c", A, "eu", "read", "user_profile", KEY)
    history.note_loss(Loss(A, 1.0, ("eu",), (B,), {"user_profile": {KEY: [user()]}}))
    history.note_death(Loss(A, 0.5))
    history.note_fault(Fault("cut", "x", 1.0, 2.0, "cut x", None))
    history.close()
    again = read_history(path)
    assert [o.outcome for o in again.operations] == ["ok", "fail", "info", "info"]
    assert [o.sent for o in again.operations] == [o.sent for o in history.operations]
    assert again.losses == history.losses
    assert again.deaths == history.deaths
    assert again.faults == history.faults
    path.write_text(path.read_text(encoding="utf-8") + '{"event": "inv', encoding="utf-8")
    assert len(read_history(path).operations) == 4


def test_an_acknowledged_message_is_delivered_and_shown_once() -> None:
    sent = op("append", 1, entity="message", key="m", sent={"content": "hello"})
    taken = op("receive", 2, entity="message", key="m", sent={"attempt": 1})
    other = op("receive", 2, entity="message", key="n")

    def broken(*operations: Operation) -> set[str]:
        fields = {f.name: None for f in entities()["message"].fields}
        row = _row("m") | fields | {"tenant_id": TENANT, "content": "hello"}
        states = final({"message": {"m": row}})
        return {b.check for b in judge(History.of(operations), states)}

    assert broken(sent, taken) == set()
    assert broken(sent) == set(), "nobody listened"
    assert broken(sent, taken, replace(taken, number=99)) == {"shown-once"}
    assert broken(sent, replace(sent, key="n"), taken) >= {"delivered"}
    assert broken(sent, taken, other) == {"shown-once"}, "nobody sent it"
    unknown = replace(sent, key="u", outcome="info")
    assert broken(sent, taken, unknown) == set()
