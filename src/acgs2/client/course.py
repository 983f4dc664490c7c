"""Where a call is sent next, after how long, or that it is given up: pure, and held by property tests.

Waits grow exponentially with full jitter (Brooker, Exponential Backoff And Jitter, AWS Architecture Blog,
2015). A place that failed is left alone for its wait, while others are tried at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from acgs2.client.places import AUTO, Endpoint, Place, Trust

__all__ = ["MAX_FOLLOWS", "Came", "Course", "Outcome", "Rule", "Send", "Stop", "begin"]

BASE_S = 0.1
CAP_S = 5.0
#: How often a call goes where an answer sent it.
MAX_FOLLOWS = 3
#: How often an answer that only a bug explains is asked for.
MAX_STRANGE = 2


class Rule(Enum):
    """Where a call may be repeated when it is not known whether it was carried out."""

    #: Nothing is stored by it.
    READ = "read"
    #: Twice is as good as once, in whichever regions.
    ANYWHERE = "anywhere"
    #: Only the region that took it knows its Idempotency-Key; another would do it again.
    SAME_REGION = "same-region"


class Came(Enum):
    """What came of an attempt."""

    SETTLED = "settled"  # a result, or a refusal that another attempt would meet too
    UNSENT = "unsent"  # nobody was reached
    UNTRUSTED = "untrusted"  # whoever was reached is not who it should be
    LATER = "later"  # said that nothing was stored, and to come again
    UNKNOWN = "unknown"  # may have been done
    STRANGE = "strange"  # may have been done; the answer is not of this API, or the server failed
    ELSEWHERE = "elsewhere"  # not lawful or not wanted there
    UNAUTHENTICATED = "unauthenticated"  # the token was not accepted


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt, and what the answer said about where and when.

    `region` is who answered, where the answer says it.
    """

    came: Came
    region: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Send:
    """Wait, then send to a place, with a new token if `renew`."""

    place: Place
    wait_s: float = 0.0
    renew: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing more is sent; `distrusted` is a URL that only lacked trust."""

    distrusted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How far a call has come. `places[0]` is where it is; the others are what is left to try.

    Args:
        fixed: the region that the caller insists on.
        renewable: whether a token that is not accepted can be replaced.
        alone: URLs behind which there is one region, the same for every request.
        due_s: when a place, or a URL, that failed may be tried again.
        spoken: places that said that they are not the one; no call goes back to them.
        distrusted: where it was sent and did not go, for lack of trust.
        doubts: how often in a row it may have been carried out here.
        unknown: whether any attempt may have been carried out.
        pinned: whether `places` are only those where a repeat is not carried out twice.
        region: the region that those lead to, None where it has no name.
    """

    rule: Rule
    deadline_s: float
    trust: Trust
    fixed: str | None
    renewable: bool
    alone: frozenset[str]
    places: tuple[Place, ...]
    due_s: Mapping[Place | str, float] = field(default_factory=dict)
    spoken: frozenset[Place] = frozenset()
    distrusted: str | None = None
    failures: int = 0
    doubts: int = 0
    follows: int = 0
    strange: int = 0
    unknown: bool = False
    pinned: bool = False
    region: str | None = None

    def after(self, outcome: Outcome, now_s: float, jitter: float) -> tuple[Course, Send | Stop]:
        """Return how things stand after an attempt at `places[0]`, and what to do.

        Args:
            outcome: what came of it.
            now_s: the time on the clock of `deadline_s`.
            jitter: a random number of 0 to 1.
        """
        here = self.places[0]
        course = self._noted(outcome)
        match outcome.came:
            case Came.SETTLED:
                return course, Stop()
            case Came.UNAUTHENTICATED:
                if not course.renewable or now_s >= course.deadline_s:
                    return course, Stop()
                return replace(course, renewable=False), Send(here, renew=True)
            case Came.STRANGE if course.strange >= MAX_STRANGE:
                return course, Stop()
            case Came.ELSEWHERE:
                return course._followed(outcome.endpoints)._next(now_s)
            case Came.UNTRUSTED:
                others = tuple(p for p in course.places if p.url != here.url)
                return replace(course, places=others)._next(now_s)
        return course._again(here, outcome, now_s, jitter)

    def _again(
        self, here: Place, outcome: Outcome, now_s: float, jitter: float
    ) -> tuple[Course, Send | Stop]:
        """Return what follows a failure that time may mend."""
        pause_s = max(jitter * min(CAP_S, BASE_S * 2 ** min(self.failures, 16)), outcome.retry_after_s)
        # Who asks for time asks it for one region; who was not heard is behind one URL.
        late = here if outcome.came is Came.LATER else here.url
        course = replace(self, failures=self.failures + 1, due_s={**self.due_s, late: now_s + pause_s})
        there = [p for p in self.places if p.url == here.url]
        if self.doubts == 1 and there:
            # Where it may have been carried out it is remembered: that place first, now perhaps by its name.
            return course._at(here if here in there else there[0], now_s)
        others = (p for p in self.places if p != here)
        last = (here,) if here in there else ()
        return replace(course, doubts=0, places=(*others, *last))._next(now_s)

    def _noted(self, outcome: Outcome) -> Course:
        """Return the course with what an outcome says about the call as a whole."""
        doubtful = outcome.came in (Came.UNKNOWN, Came.STRANGE)
        course = replace(
            self,
            doubts=self.doubts + 1 if doubtful else 0,
            strange=self.strange + (outcome.came is Came.STRANGE),
        )
        if not doubtful or self.rule is Rule.READ:
            return course
        course = replace(course, unknown=True)
        if self.rule is Rule.SAME_REGION and not self.pinned:
            return course._pinned(outcome.region)
        return course

    def _pinned(self, answered: str | None) -> Course:
        """Return the course with the region that may have done it; nowhere to go if nobody can say which."""
        here = self.places[0]
        region = here.preference if here.preference != AUTO else answered
        if region is not None:
            urls = (here.url, *self.trust.homes)
            places = _without([Place(url, region) for url in urls], self.spoken)
        else:
            places = (here,) if here.url in self.alone else ()
        return replace(self, pinned=True, region=region, places=places)

    def _followed(self, endpoints: tuple[Endpoint, ...]) -> Course:
        """Return the course after a place said that it is not the one: elsewhere, and never there again."""
        said, rest = self.places[0], list(self.places[1:])
        wanted = said.preference if self.pinned else self.fixed
        named = [e for e in endpoints if wanted is None or e.region == wanted]
        base = said.url if said.url in self.trust.homes else None
        if said.preference in {e.region for e in named}:
            # Asked for that region, it sends there: it does not route, and is not asked for others.
            rest = [p for p in rest if p.url != base or p.preference == AUTO]
            base = None
        new, distrusted = [], self.distrusted
        for endpoint in named:
            if base:
                new.append(Place(base, endpoint.region))
            if endpoint.url and self.trust.covers(endpoint.url):
                new.append(Place(endpoint.url.rstrip("/"), endpoint.region))
            elif endpoint.url:
                distrusted = endpoint.url
        spoken = self.spoken | {said}
        if new and self.follows == MAX_FOLLOWS:
            return replace(self, places=(), spoken=spoken)
        return replace(
            self,
            places=_without([*new, *rest], spoken),
            spoken=spoken,
            distrusted=distrusted,
            follows=self.follows + bool(new),
        )

    def _next(self, now_s: float) -> tuple[Course, Send | Stop]:
        """Return the first place that may be tried at once, else the one that may be tried soonest."""
        if not self.places:
            return self, Stop(self.distrusted)
        ready = [p for p in self.places if self._due_s(p) <= now_s]
        return self._at(ready[0] if ready else min(self.places, key=self._due_s), now_s)

    def _due_s(self, place: Place) -> float:
        return max(self.due_s.get(place, float("-inf")), self.due_s.get(place.url, float("-inf")))

    def _at(self, place: Place, now_s: float) -> tuple[Course, Send | Stop]:
        wait_s = max(0.0, self._due_s(place) - now_s)
        if now_s + wait_s >= self.deadline_s:
            return self, Stop(self.distrusted)
        others = (p for p in self.places if p != place)
        return replace(self, places=(place, *others)), Send(place, wait_s)


def begin(
    rule: Rule,
    deadline_s: float,
    trust: Trust,
    *,
    fixed: str | None = None,
    renewable: bool = False,
    alone: frozenset[str] = frozenset(),
    first: Iterable[Place] = (),
) -> Course:
    """Return a course at its start: first the places known to be right, then the base URLs in turn."""
    homes = [Place(url, fixed or AUTO) for url in trust.homes]
    return Course(
        rule=rule,
        deadline_s=deadline_s,
        trust=trust,
        fixed=fixed,
        renewable=renewable,
        alone=alone,
        places=_without([*first, *homes], frozenset()),
    )


def _without(places: Iterable[Place], spoken: frozenset[Place]) -> tuple[Place, ...]:
    return tuple(p for p in dict.fromkeys(places) if p not in spoken)
