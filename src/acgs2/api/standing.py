"""What is agreed on where traffic goes, as a region last heard it, and whether the region takes part.

A failover fences the region that it leaves before it does anything else. Whoever is fenced finds out by
itself: it governs only while what it last heard is no older than a lease, and says that it takes part. So a
region that is cut off has stopped by the time that a lease is over, and one that comes back does not begin
before it was let in again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from acgs2.consensus import Register, Versioned, boottime_s
from acgs2.errors import UnavailableError
from acgs2.logs.write import get_logger
from acgs2.plan import Agreed, agreed_of, document_of

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer

__all__ = ["KEY", "Participation", "run_standing"]

_LOG = get_logger("acgs2.standing")
#: What is agreed on, as one value: see `acgs2.plan.Agreed`.
KEY = "failover"
#: How often a region looks.
_LOOK_S = 0.4
_REST_S = 0.05


class Participation:
    """One region's view of what is agreed on traffic.

    Args:
        register: where it is agreed.
        region: this one.
        lease_s: how long a region may act on what it last heard; the same in every region.
        clock_s: CLOCK_BOOTTIME, or what a test gives.
    """

    def __init__(
        self, register: Register, region: str, lease_s: float, clock_s: Callable[[], float] = boottime_s
    ) -> None:
        self.lease_s = lease_s
        self._register = register
        self._region = region
        self._clock_s = clock_s
        self._until_s = float("-inf")
        #: Since when (monotonic) this region has known that it takes no part, None while it does.
        self.fenced_s: float | None = None
        #: How often what is agreed has changed, and what it is, as last heard; None before the first time.
        self.known: tuple[int, Agreed] | None = None

    @property
    def agreed(self) -> Agreed:
        """Return what is agreed as last heard; nothing, before the first time."""
        return self.known[1] if self.known is not None else Agreed()

    def require(self) -> tuple[int, Agreed]:
        """Return what is agreed as last heard, and how often that has changed.

        Raises:
            UnavailableError: nothing was heard yet (`traffic-unknown`).
        """
        if self.known is None:
            raise UnavailableError(
                "traffic-unknown",
                f"{self._region} does not know yet what is agreed on traffic.",
                hint="Ask another region, or try again in a moment.",
            )
        return self.known

    def left_s(self) -> float:
        """Return for how long this region may act on what it last heard; 0 where it takes no part."""
        if self.fenced() is not None:
            return 0.0
        return max(0.0, self._until_s - self._clock_s())

    def fenced(self) -> UnavailableError | None:
        """Return why this region takes no part, None if it does or does not know that yet."""
        if self._region not in self.agreed.traffic.down:
            return None
        plan = self.agreed.plans.get(self._region) or self.agreed.last(self._region)
        why = f"{plan.kind} {plan.id}: {plan.cause}" if plan is not None else "it was failed over from"
        return UnavailableError(
            "fenced",
            f"{self._region} takes no part ({why.rstrip('.')}).",
            hint="Ask another region; nothing was stored. It is let in again by `acgs2 failback`.",
            plan=plan.id if plan is not None else None,
        )

    async def look(self) -> None:
        """Ask a majority what is agreed; one round over the links where nothing is under way.

        Raises:
            UnavailableError: no majority answers; what was known stays so until the lease runs out.
            msgspec.ValidationError: it is nothing that this release knows.
        """
        began_s = self._clock_s()
        self._take(await self._register.read(KEY), began_s)

    async def change(self, decide: Callable[[Agreed], Agreed]) -> tuple[int, Agreed]:
        """Change what is agreed by compare-and-set, and return it.

        Args:
            decide: from what is agreed to what shall be; the same leaves it as it is. May be called more than
                once, must not have effects, and may raise to refuse: then nothing is changed.

        Raises:
            UnavailableError: no majority answers, or others kept changing it; the change may yet come about.
            msgspec.ValidationError: what is agreed is nothing that this release knows.
        """
        began_s = self._clock_s()

        def next_value(value: object) -> object:
            now = agreed_of(value)  # type: ignore[arg-type]
            then = decide(now)
            return value if then == now else document_of(then)

        return self._take(await self._register.change(KEY, next_value), began_s)

    def _take(self, found: Versioned, began_s: float) -> tuple[int, Agreed]:
        """Go by what was heard, unless something newer was heard meanwhile."""
        if self.known is not None and found.version == self.known[0]:
            told = self.known  # one version is one value
        else:
            told = (found.version, agreed_of(found.value))
        if self.known is not None and found.version < self.known[0]:
            return told
        before = self.fenced()
        self.known = told
        self._until_s = max(self._until_s, began_s + self.lease_s)
        if (now := self.fenced()) is not None and before is None:
            self.fenced_s = time.monotonic()
            _LOG.warning("fenced", plan=now.context["plan"], version=found.version)
        elif now is None and before is not None:
            self.fenced_s = None
            _LOG.warning("taking-part", version=found.version)
        return told


async def run_standing(server: RegionServer) -> None:
    """Keep to what is agreed until cancelled; an absent majority is waited for."""
    part, heard = server.participation, True
    while True:
        began_s = boottime_s()
        try:
            # A look that is not answered within a lease says nothing any more.
            async with asyncio.timeout(part.lease_s / 2):
                await part.look()
            heard = True
        except (UnavailableError, TimeoutError, msgspec.ValidationError) as error:
            if heard:
                _LOG.warning("traffic-not-heard", error=getattr(error, "reference", type(error).__name__))
            heard = False
        await asyncio.sleep(max(_LOOK_S - (boottime_s() - began_s), _REST_S))
