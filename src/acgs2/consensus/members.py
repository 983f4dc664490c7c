"""Changing who votes, one voter at a time, without a moment in which two halves could decide.

Neighbouring sets share a voter in any two majorities; sets that are two changes apart need not. So a set is
agreed on under the one before it, then every value is agreed on once more under the new one (the rescan of
Rystsov 2018, section 2.3), and only then may the next change begin. Voters refuse a set older than the newest
that they know, so that nobody goes on by one that has been left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from acgs2.consensus.register import PaxosRegister, VoterAway
from acgs2.consensus.voters import DatabaseVoter
from acgs2.consensus.votes import Members
from acgs2.errors import InputError, UnavailableError

__all__ = ["KEY", "change_voters", "level", "settle"]

#: The register's key for the set of voters itself.
KEY = "voters"


async def change_voters(
    register: PaxosRegister, voters: Mapping[str, DatabaseVoter], *, add: str = "", remove: str = ""
) -> Members:
    """Add a region to those that vote, or remove one; safe to repeat, and to go on with by anyone.

    Args:
        register: over the voters as they are.
        voters: every region that may vote, by name.
        add: the region to add; its database is reached and has its identity.
        remove: the region to remove; it need not be reached.

    Returns:
        Who votes then.

    Raises:
        InputError: there is no such region (`region-unknown`), or nobody would be left (`last-voter`).
        UnavailableError: no majority, or the region to add cannot be reached (`voter-away`).
    """
    if add and add not in voters:
        raise InputError(
            "region-unknown", f"There is no region {add!r}.", hint=f"Regions: {', '.join(voters)}."
        )
    await settle(register, voters)
    now = register.members
    wanted = tuple(sorted(({*now.names} | ({add} if add else set())) - {remove}))
    if wanted == now.names:
        return now
    if not wanted:
        raise InputError("last-voter", f"{remove} is the last voter.", hint="Add another one first.")
    if add:
        await _enroll(voters[add], add, now)

    def decide(value: Any) -> Any:
        # Someone else was quicker: what they agreed on stands, and the caller sees it.
        if value is not None and value["epoch"] != now.epoch:
            return value
        return {"epoch": now.epoch + 1, "names": list(wanted), "settled": False}

    await register.change(KEY, decide)
    await settle(register, voters)
    if register.members.names != wanted:
        raise UnavailableError(
            "contended",
            "Someone else changed who votes at the same time.",
            hint="See who votes now, and ask again if need be.",
            names=list(register.members.names),
        )
    return register.members


async def settle(register: PaxosRegister, voters: Mapping[str, DatabaseVoter]) -> None:
    """Finish the last change: go by the agreed set, and agree on every value once more under it."""
    agreed = (await register.read(KEY)).value
    if agreed is None:
        return
    members = Members(agreed["epoch"], tuple(agreed["names"]))
    register.adopt(members)
    if agreed["settled"]:
        return
    for key in await _keys(members, voters):
        # Not by looking: voters that have accepted it must also have met the new set, and refuse the old one.
        await register.rewrite(key)

    def decide(value: Any) -> Any:
        return {**value, "settled": True} if value["epoch"] == members.epoch else value

    await register.change(KEY, decide)


async def level(register: PaxosRegister, voters: Mapping[str, DatabaseVoter]) -> None:
    """See to it that all voters that answer have all that is agreed; see `PaxosRegister.level`.

    Raises:
        UnavailableError: no majority answers.
    """
    for key in await _keys(register.members, voters):
        await register.level(key)


async def _keys(members: Members, voters: Mapping[str, DatabaseVoter]) -> list[str]:
    """Return the keys that a majority knows: every agreed value's is among them."""
    reached = [voters[name] for name in members.names if name in voters]
    answers = await asyncio.gather(*(v.keys() for v in reached), return_exceptions=True)
    heard = [a for a in answers if isinstance(a, list)]
    if len(heard) < members.enough:
        raise UnavailableError(
            "no-majority",
            f"{len(heard)} of {len(members.names)} voters answer; {members.enough} must agree.",
            hint="Wait until more regions are connected.",
        )
    return sorted({key for answer in heard for key in answer} - {KEY})


async def _enroll(voter: DatabaseVoter, name: str, members: Members) -> None:
    try:
        enrolled = await voter.enroll(members)
    except VoterAway as error:
        raise UnavailableError(
            "voter-away", f"The database of {name} does not answer.", hint="Bring the region up first."
        ) from error
    if not enrolled:
        raise UnavailableError(
            "contended", f"{name} knows of a later change of who votes.", hint="Try again in a moment."
        )
