"""The inboxes of a region: which zones it serves, and what must hold before anything is given or taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from acgs2.bus.desk import Desk, Receiver
from acgs2.bus.seat import Seat, not_served
from acgs2.bus.streams import Streams
from acgs2.consensus import Register
from acgs2.errors import InputError, ResidencyError, UnavailableError

__all__ = ["Inboxes"]

#: How long a move waits for somebody to serve, in leases: by then the next has had its turn too.
_TAKEN = 2
_LOOK_S = 0.05


class Inboxes:
    """Serves the inboxes of those zones whose lease this region holds.

    Args:
        desk: where claims are made.
        register: where it is agreed who serves.
        region: this region.
        length_s: of a lease.
        candidates: zone to the regions that may serve it, in order.
        endpoints: regions to where they are reached.
        fit: whether this region can serve now.
        governed: raises where this region does not govern, or the receiver is halted; asked with every act.
        record: notes in the database what is served; see `Seat`.
    """

    def __init__(
        self,
        desk: Desk,
        register: Register,
        region: str,
        length_s: float,
        *,
        candidates: Callable[[str], Sequence[str]],
        endpoints: Callable[[Sequence[str]], list[dict[str, str]]],
        fit: Callable[[], bool],
        governed: Callable[[Receiver], None],
        record: Callable[[str, int, bool], Awaitable[bool]],
    ) -> None:
        self.desk = desk
        self._register = register
        self._region = region
        self._length_s = length_s
        self._candidates = candidates
        self._endpoints = endpoints
        self._fit = fit
        self._governed = governed
        self._record = record
        self.seats: dict[str, Seat] = {}
        self.streams = Streams()

    def seat(self, zone: str) -> Seat:
        """Return this region's part in serving a zone."""
        if zone not in self.seats:
            self.seats[zone] = Seat(
                self._register,
                zone,
                self._region,
                self._length_s,
                candidates=lambda: self._candidates(zone),
                fit=self._fit,
                record=self._record,
            )
        return self.seats[zone]

    def require(self, receiver: Receiver, generation: int | None = None) -> int:
        """Return the generation in which this region serves a receiver's inbox now.

        The one place where it is decided: ask before every act, and with the generation before its reply.

        Args:
            receiver: whose inbox.
            generation: what must not have changed since.

        Raises:
            ResidencyError: another region serves it (`inbox-served-elsewhere`), as far as is known here.
            UnavailableError: nobody is known to (`inbox-not-served`), or this region does not govern.
            ForbiddenError: the receiver is halted.
        """
        now = self.serving(receiver.zone)
        if generation is not None and now != generation:
            raise not_served(receiver.zone)
        self._governed(receiver)
        return now

    def serving(self, zone: str) -> int:
        """Return the generation in which this region serves a zone; raises as `require` does."""
        seat = self.seats.get(zone)
        generation = seat.serving() if seat is not None else None
        if generation is not None:
            return generation
        region = seat.known()[0] if seat is not None else None
        if region is None or region == self._region:
            raise not_served(zone)
        raise ResidencyError(
            "inbox-served-elsewhere",
            f"{region} serves the inboxes of zone {zone}.",
            hint="Send the request to the endpoint.",
            zone=zone,
            region=self._region,
            endpoints=self._endpoints([region]),
        )

    def serves(self, zone: str) -> bool:
        """Return whether this region serves the inboxes of a zone now."""
        seat = self.seats.get(zone)
        return seat is not None and seat.serving() is not None

    def served_in(self, zone: str) -> str | None:
        """Return which region serves the inboxes of a zone as far as is known here."""
        seat = self.seats.get(zone)
        return seat.known()[0] if seat is not None else None

    async def move(self, zone: str, to: str, before: Callable[[], Awaitable[None]]) -> None:
        """Hand a zone's inboxes over to another region that may serve them.

        Args:
            zone: whose inboxes.
            to: who shall serve them.
            before: waits until that region knows what was acknowledged here.

        Raises:
            InputError: that region may not (`region-not-lawful`).
            ResidencyError: this region does not serve them.
            UnavailableError: nothing was moved, or that region did not take them (`inbox-not-taken`).
        """
        order = self._candidates(zone)
        if to not in order:
            raise InputError(
                "region-not-lawful",
                f"{to} may not serve the inboxes of zone {zone}.",
                hint=f"Lawful: {', '.join(order) or 'none'}.",
                zone=zone,
                lawful=list(order),
            )
        self.serving(zone)
        if to == self._region:
            return

        async def told() -> None:
            await self.desk.tell()
            await before()

        await self.seats[zone].hand_over(to, told)
        await self._taken(zone, to)

    async def _taken(self, zone: str, to: str) -> None:
        """Wait until who was named serves; who is slow to take them loses its turn, and that is said."""
        region = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN * self._length_s):
                while region is None:
                    await asyncio.sleep(_LOOK_S)
                    region, _ = self.seats[zone].known()
        if region != to:
            raise UnavailableError(
                "inbox-not-taken",
                f"{to} did not take the inboxes of zone {zone}; {region or 'nobody'} serves them.",
                hint=f"See whether {to} is well (`acgs2 status`), and move them again.",
                zone=zone,
                served_by=region,
            )

    def served(self) -> dict[str, tuple[str | None, int]]:
        """Return of every zone known here which region serves it, as far as is known, and the generation."""
        return {zone: seat.known() for zone, seat in sorted(self.seats.items())}
