"""A call in a world of regions that remember keys, and an edge that sends requests where it likes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.client.course import Came, Course, Outcome, Rule, Stop, begin
from acgs2.client.places import AUTO, Endpoint, Place, Trust

EDGE, OTHER_EDGE = "https://api.acgs2.example", "https://api2.acgs2.example"
URLS = {name: f"https://{name}.acgs2.example" for name in ("west", "central")}


@dataclass
class World:
    """Regions that carry a call out once each, behind edges or reached directly.

    Each attempt meets a fault: `none`; `refused` and `later`, where nothing is stored; `lost` before it is
    carried out or after; `doubt`, where it is, and the answer says that it is not known everywhere.
    """

    done: list[str] = field(default_factory=list)

    def meet(self, place: Place, fault: str, routed: str, down: str) -> Outcome:
        """Return what comes of an attempt.

        Args:
            place: where it is sent.
            fault: what happens to it.
            routed: where an edge sends what asks for no region.
            down: what the edge takes for dead; it sends that to the other region.
        """
        if fault == "refused":
            return Outcome(Came.UNSENT)
        direct = next((name for name, url in URLS.items() if url == place.url), None)
        wanted = place.preference if place.preference != AUTO else None
        region = direct or wanted or routed
        if direct is None and region == down:
            region = "central" if down == "west" else "west"
        if fault == "lost before":
            return Outcome(Came.UNKNOWN)
        if wanted not in (None, region):
            # A region takes nothing for which another was asked for, whoever routed it.
            assert wanted is not None
            return Outcome(Came.ELSEWHERE, region, (Endpoint(wanted, URLS[wanted]),))
        if fault == "later":
            return Outcome(Came.LATER, region)
        if region not in self.done:
            self.done.append(region)
        if fault == "lost after":
            return Outcome(Came.UNKNOWN)
        return Outcome(Came.UNKNOWN if fault == "doubt" else Came.SETTLED, region)


faults = st.sampled_from(["none", "lost after", "doubt", "lost before", "refused", "later"])
regions = st.sampled_from(["west", "central"])
meetings = st.lists(
    st.tuples(faults, regions, st.sampled_from(["", "west", "central"])), min_size=6, max_size=12
)


@settings(max_examples=300)
@given(
    meetings,
    st.sampled_from([(EDGE,), (EDGE, OTHER_EDGE), (URLS["west"],), (URLS["west"], URLS["central"])]),
    st.sampled_from([None, "west"]),
    st.sampled_from([None, "west", "central"]),
)
def test_whatever_is_lost_it_is_counted_once_or_said_to_be_unknown(
    meetings: list[tuple[str, str, str]], homes: tuple[str, ...], fixed: str | None, named: str | None
) -> None:
    alone = frozenset(homes) & frozenset(URLS.values())
    first = [Place(homes[0], named)] if named and fixed is None and not alone else []
    course: Course = begin(
        Rule.SAME_REGION, 1e6, Trust(homes, "acgs2.example"), fixed=fixed, alone=alone, first=first
    )
    world, place, settled = World(), course.places[0], False
    for fault, routed, down in meetings:
        outcome = world.meet(place, fault, routed, down)
        course, step = course.after(outcome, 0.0, 0.5)
        settled = outcome.came is Came.SETTLED
        if isinstance(step, Stop):
            break
        place = step.place
    assert len(world.done) <= 1
    if settled:
        assert len(world.done) == 1
    elif not course.unknown:
        assert not world.done
    if course.region is not None and world.done:
        assert world.done == [course.region]
