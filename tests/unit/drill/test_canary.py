"""The sweep finds a text wherever it may not be, on a directory laid out like a cluster's."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from acgs2.drill.canary import canaries_of, sweep
from acgs2.drill.history import Operation
from acgs2.local.state import State
from acgs2.plan import rights_of
from acgs2.topology import load

LOCAL = load("local")
WEST, CENTRAL, US, SG = "eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-1"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
RIGHTS = rights_of(LOCAL, NOW)
USER, NOTE = "d1.eu.user.7", "d1.eu.message.8"
OPERATIONS = [
    Operation(
        0, "dublin", WEST, "eu", "create", "user_profile", "k", 0.0, {"display_name": f"~{USER}+drill~"}
    ),
    Operation(1, "dublin", WEST, "eu", "append", "message", "m", 0.0, {"content": f"~{NOTE}+drill~"}),
]


def stage(path: Path) -> State:
    state = State(path, LOCAL, {}, {})
    state.logs.mkdir()
    for region in LOCAL.regions:
        (state.data_path(region) / "pg_wal").mkdir(parents=True)
        (state.data_path(region) / "pg_wal" / "0001").write_bytes(b"\0\1nothing")
        (state.logs / f"{region}.server.log").write_text("started\n")
    (state.logs / "edge.log").write_text("")
    return state


def found(state: State, traces: dict[str, dict[str, list[str]]]) -> list[str]:
    full = {region: traces.get(region, {}) for region in LOCAL.regions}
    return sweep(state, full, canaries_of(OPERATIONS, RIGHTS), "d1").misplaced


def test_who_may_hold_what_follows_from_the_register() -> None:
    canaries = canaries_of(OPERATIONS, RIGHTS)
    assert canaries[USER].may == {WEST, CENTRAL, US}
    assert canaries[NOTE].may == {WEST, CENTRAL}


def test_where_it_may_be_it_may_be(tmp_path: Path) -> None:
    state = stage(tmp_path)
    (state.data_path(US) / "pg_wal" / "0002").write_bytes(f"\0~{USER}+drill~\0".encode())
    assert found(state, {WEST: {USER: ["acgs.user_profile"], NOTE: ["acgs.message"]}}) == []


def test_a_table_a_log_and_a_file_are_looked_through(tmp_path: Path) -> None:
    state = stage(tmp_path)
    (state.data_path(US) / "pg_wal" / "0002").write_bytes(f"\0~{NOTE}+drill~\0".encode())
    (state.logs / f"{SG}.server.log").write_text(f"cannot take ~{USER}+drill~\n")
    (state.logs / "edge.log").write_text(f"~{USER}+drill~")
    assert found(state, {SG: {USER: ["acgs.journal"]}}) == [
        f"{US}: {NOTE} in regions/{US}/data/pg_wal/0002",
        f"{SG}: {USER} in table acgs.journal",
        f"{SG}: {USER} in logs/{SG}.server.log",
        f"{USER} in logs/edge.log",
    ]


def test_a_text_that_a_page_cuts_off_is_known_by_its_beginning(tmp_path: Path) -> None:
    state = stage(tmp_path)
    (state.data_path(US) / "pg_wal" / "0002").write_bytes(b"\0~d1.eu.message")
    assert found(state, {}) == [f"{US}: d1.eu.message in regions/{US}/data/pg_wal/0002"]
    (state.data_path(US) / "pg_wal" / "0002").write_bytes(b"\0~d1.eu.user\0~d2.eu.message.9+drill~")
    assert found(state, {}) == [], "it may be a user's, and others' runs are theirs"
    (state.data_path(US) / "pg_wal" / "0002").write_bytes(b"\0~d1.eu.message.8k\0~d1.euk\0")
    assert found(state, {}) == [f"{US}: d1.eu.message.8k in regions/{US}/data/pg_wal/0002"]


def test_a_file_that_was_not_written_since_it_began_is_not_read_again(tmp_path: Path) -> None:
    state = stage(tmp_path)
    traces: dict[str, dict[str, list[str]]] = {region: {} for region in LOCAL.regions}
    logs = sorted(state.logs.iterdir())
    for path in logs:
        os.utime(path, (NOW.timestamp() - 1, NOW.timestamp() - 1))
    (state.logs / f"{SG}.server.log").write_text(f"cannot take ~{USER}+drill~\n")
    swept = sweep(state, traces, canaries_of(OPERATIONS, RIGHTS), "d1", since=NOW)
    assert swept.misplaced == [f"{SG}: {USER} in logs/{SG}.server.log"]
    written = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_mtime > NOW.timestamp()
    ]
    assert swept.swept_bytes == sum(path.stat().st_size for path in written)
