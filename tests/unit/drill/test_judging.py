"""Regions that do not go by the same at the end of a drill are found, and which they are."""

from __future__ import annotations

from typing import Any

from acgs2.drill.judging import apart


def says(constitution: int, digest: str = "aa", policies: int = 1) -> dict[str, Any]:
    return {
        "versions": {"constitution": constitution, "policies": policies, "halts": 1},
        "constitution": {"id": "c", "version": constitution, "digest": digest},
    }


def test_regions_that_go_by_the_same_are_not_apart() -> None:
    assert apart({"a": says(2), "b": says(2), "c": says(2)}) == []


def test_who_goes_by_an_older_one_by_none_or_says_nothing_is_named() -> None:
    nothing_yet = {"versions": {}, "constitution": None}
    found = apart({"a": says(2), "b": says(1), "c": nothing_yet, "d": {}, "e": says(2)})
    assert [what.split(",")[0].rpartition(" goes")[0] for what in found] == [
        "governance: b",
        "governance: c",
        "governance: d",
    ]
    assert "'constitution': 1" in found[0]
    assert "others by {'constitution': 2" in found[0]


def test_one_version_with_two_contents_is_found() -> None:
    (found,) = apart({"a": says(2), "b": says(2, "bb"), "c": says(2)})
    assert found == "governance: version 2 of the constitution is not one: a, c: aa; b: bb"
