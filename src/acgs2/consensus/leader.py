"""Which region leads: one at a time, under a term that only rises, for as long as its lease runs.

What a majority agrees on, one region carries out. It asks `held(term)` before every act, and again before it
tells the act's effect: in between it may have been frozen, cut off or found unfit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random

from acgs2.consensus.lease import Lease, boottime_s
from acgs2.consensus.register import Register
from acgs2.errors import UnavailableError
from acgs2.logs.write import get_logger

__all__ = ["KEY", "Leader"]

_LOG = get_logger("acgs2.leader")
KEY = "leader"
#: How many renewals fit into a lease: two may fail.
_RENEWALS = 3
#: Contenders that saw a lease lapse at the same moment do not ask at the same moment.
_SPREAD = 0.1
_GOODBYE_S = 1.0


class Leader:
    """One region's part in having a leader.

    Args:
        register: where it is agreed.
        region: this one.
        length_s: how long a leader leads without renewal; the same in every region.
        fit: whether this region may lead now; what it has it does not hold while it is not, and gives up.
        clock_s: CLOCK_BOOTTIME, or what a test gives.
        rng: for what spreads contenders.
    """

    def __init__(
        self,
        register: Register,
        region: str,
        length_s: float,
        *,
        fit: Callable[[], bool] = lambda: True,
        clock_s: Callable[[], float] = boottime_s,
        rng: Random | None = None,
    ) -> None:
        self._lease = Lease(register, KEY, region, length_s, clock_s)
        self._length_s = length_s
        self._fit = fit
        self._clock_s = clock_s
        self._rng = rng or Random()

    @property
    def term(self) -> int:
        """Return the term in which this region led last, 0 if it never did; terms only rise."""
        return self._lease.term

    def held(self, term: int | None = None) -> bool:
        """Return whether this region leads now, and still in that term where one is given."""
        return self._fit() and self._lease.held() and term in (None, self._lease.term)

    def known(self) -> tuple[str | None, int]:
        """Return which region leads as far as is known here, None if none is known to, and the latest term.

        Nobody is asked. Only the leader's own `held` says that it leads.
        """
        region, term = self._lease.holder()
        return (None if self._lease.held() and not self._fit() else region), term

    async def step(self) -> None:
        """Renew, take over what has lapsed, or watch; without a majority nothing changes."""
        if self._fit():
            await self._lease.step()
            return
        if self._lease.held():
            with contextlib.suppress(UnavailableError):  # then it lapses by itself
                await self._lease.release()
        await self._lease.watch()

    async def run(self) -> None:
        """Step until cancelled, and give up then, so that no other has to wait for a lease to lapse."""
        leading = False
        try:
            while True:
                began_s = self._clock_s()
                await self.step()
                if self.held() != leading:
                    leading = not leading
                    _LOG.warning("leading" if leading else "not-leading", term=self.term)
                await asyncio.sleep(self._rest_s(began_s))
        finally:
            if self._lease.held():
                with contextlib.suppress(UnavailableError, TimeoutError):
                    async with asyncio.timeout(_GOODBYE_S):
                        await self._lease.release()

    def _rest_s(self, began_s: float) -> float:
        """Return how long to rest after a step; who watches steps again when it may take over, if sooner."""
        rest_s = began_s + self._length_s / _RENEWALS - self._clock_s()
        lapse_s = self._lease.lapses_in_s()
        if lapse_s > 0:
            rest_s = min(rest_s, lapse_s + self._rng.uniform(0, _SPREAD) * self._length_s)
        return max(rest_s, 0.0)
