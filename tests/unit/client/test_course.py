"""Whatever answers come, in whichever order, a call keeps to its deadline, its region and those it trusts."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.client.course import MAX_FOLLOWS, Came, Course, Outcome, Rule, Send, Stop, begin
from acgs2.client.places import AUTO, Endpoint, Place, Trust

HOME, OTHER = "https://api.acgs2.example", "https://other.acgs2.example"
WEST, CENTRAL = "https://west.acgs2.example", "https://central.acgs2.example"
TRUST = Trust((HOME, OTHER), "acgs2.example")
ONE = Trust((HOME,), "acgs2.example")

FAR = [
    (),
    (Endpoint("west", WEST),),
    (Endpoint("west", WEST), Endpoint("central", CENTRAL)),
    (Endpoint("central"), Endpoint("us", "https://us.acgs2.example")),
    (Endpoint("west", "https://thief.example"),),
    (Endpoint("central", HOME), Endpoint("west")),
]


def outcomes(*cames: Came) -> st.SearchStrategy[Outcome]:
    """Return outcomes of these kinds, of which those that come first shrink best."""
    return st.builds(
        Outcome,
        came=st.sampled_from(cames),
        region=st.sampled_from([None, "west", "central"]),
        endpoints=st.sampled_from(FAR),
        retry_after_s=st.sampled_from([0.0, 0.5, 3.0, 100.0]),
    )


def courses(*rules: Rule) -> st.SearchStrategy[Course]:
    return st.builds(
        begin,
        st.sampled_from(rules),
        st.sampled_from([0.5, 5.0, 60.0]),
        st.sampled_from([TRUST, ONE, Trust((HOME,))]),
        fixed=st.sampled_from([None, None, "west"]),
        renewable=st.booleans(),
        alone=st.sampled_from([frozenset(), frozenset({HOME})]),
        first=st.sampled_from([(), (Place(WEST, "west"),)]),
    )


@dataclass
class Attempt:
    """What was sent and what came of it."""

    at_s: float
    ended_s: float
    place: Place
    came: Came
    region: str | None
    retry_after_s: float
    renewed: bool = False


@dataclass
class Trip:
    """A course and what became of it."""

    start: Course
    attempts: list[Attempt] = field(default_factory=list)
    last: Stop | None = None
    course: Course | None = None


def travel(course: Course, answers: list[tuple[Outcome, float, float]]) -> Trip:
    """Send to places for as long as the course says so; each attempt takes its time."""
    trip, now_s, step = Trip(course, course=course), 0.0, Send(course.places[0])
    for outcome, took_s, jitter in answers:
        at_s = now_s + step.wait_s
        now_s = at_s + took_s
        trip.attempts.append(
            Attempt(at_s, now_s, step.place, outcome.came, outcome.region, outcome.retry_after_s, step.renew)
        )
        course, after = course.after(outcome, now_s, jitter)
        trip.course = course
        if isinstance(after, Stop):
            trip.last = after
            break
        step = after
    return trip


def trips_of(
    course: st.SearchStrategy[Course], outcome: st.SearchStrategy[Outcome]
) -> st.SearchStrategy[Trip]:
    """Return trips of at least a few attempts, unless they end before."""
    jitter, took_s = st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.1, 2.0])
    return st.builds(travel, course, st.lists(st.tuples(outcome, took_s, jitter), min_size=4, max_size=15))


trips = trips_of(courses(*Rule), outcomes(*(c for c in Came if c is not Came.SETTLED)))
sent_away = trips_of(courses(*Rule), outcomes(Came.ELSEWHERE, Came.ELSEWHERE, Came.UNSENT, Came.UNKNOWN))
doubted = trips_of(courses(Rule.SAME_REGION), outcomes(Came.UNKNOWN, Came.UNSENT, Came.LATER, Came.ELSEWHERE))
DOUBTFUL = (Came.UNKNOWN, Came.STRANGE)


@given(trips)
def test_nothing_is_sent_after_the_deadline(trip: Trip) -> None:
    for attempt in trip.attempts[1:]:
        assert attempt.at_s < trip.start.deadline_s


@given(sent_away)
def test_the_token_goes_only_to_whom_it_may_be_shown(trip: Trip) -> None:
    for attempt in trip.attempts:
        assert trip.start.trust.covers(attempt.place.url) or attempt.place in trip.start.places


@given(sent_away)
def test_a_region_that_the_caller_insists_on_is_the_only_one_asked(trip: Trip) -> None:
    if trip.start.fixed is not None:
        assert {a.place.preference for a in trip.attempts} <= {trip.start.fixed}


@given(doubted)
def test_what_only_one_region_knows_is_repeated_there_or_not_at_all(trip: Trip) -> None:
    """The region of a doubtful attempt is the one asked for, else who answered, else the only one there is."""
    at = next((n for n, a in enumerate(trip.attempts) if a.came in DOUBTFUL), None)
    if at is None:
        return
    first, later = trip.attempts[at], trip.attempts[at + 1 :]
    region = first.place.preference if first.place.preference != AUTO else first.region
    if region is not None:
        stray = [a for a in later if a.place.preference != region]
    else:
        stray = [a for a in later if first.place.url not in trip.start.alone or a.place != first.place]
    assert not stray


@given(sent_away)
def test_it_is_followed_three_times_and_never_back(trip: Trip) -> None:
    gone: set[Place] = set()
    for attempt in trip.attempts:
        assert attempt.place not in gone
        if attempt.came is Came.ELSEWHERE:
            gone.add(attempt.place)
    assert trip.course is not None
    assert trip.course.follows <= MAX_FOLLOWS


@given(trips)
def test_who_asked_for_time_is_given_it(trip: Trip) -> None:
    """One region behind a URL that asks for it; all that is behind it where nobody was heard."""
    until: dict[Place | str, float] = {}
    for attempt in trip.attempts:
        assert attempt.at_s >= max(until.get(attempt.place, 0), until.get(attempt.place.url, 0))
        end_s = attempt.ended_s + attempt.retry_after_s
        if attempt.came is Came.LATER:
            until[attempt.place] = end_s
        elif attempt.came in (Came.UNSENT, *DOUBTFUL):
            until[attempt.place.url] = max(until.get(attempt.place.url, 0), end_s)


@given(trips)
def test_a_token_is_renewed_once_and_a_servers_bug_asked_for_twice(trip: Trip) -> None:
    assert sum(a.renewed for a in trip.attempts) <= trip.start.renewable
    assert sum(a.came is Came.STRANGE for a in trip.attempts) <= 2


@given(trips)
def test_a_read_leaves_nothing_unknown_and_a_write_tells(trip: Trip) -> None:
    doubted = any(a.came in DOUBTFUL for a in trip.attempts)
    assert trip.course is not None
    assert trip.course.unknown is (doubted and trip.start.rule is not Rule.READ)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_waits_grow_and_are_bounded(jitters: list[float]) -> None:
    course: Course = begin(Rule.READ, 1e9, ONE)
    for n, jitter in enumerate(jitters):
        course, step = course.after(Outcome(Came.UNSENT), 0.0, jitter)
        assert isinstance(step, Send)
        assert step.wait_s == pytest.approx(jitter * min(5.0, 0.1 * 2**n))


def follow(course: Course, *answers: Outcome) -> list[Place]:
    """Return where a course leads."""
    return [
        a.place for a in travel(course, [(a, 0.0, 0.5) for a in (*answers, Outcome(Came.SETTLED))]).attempts
    ]


def elsewhere(*named: Endpoint) -> Outcome:
    return Outcome(Came.ELSEWHERE, endpoints=named)


def test_the_edge_is_asked_for_the_region_before_the_region_itself() -> None:
    west = Endpoint("west", WEST)
    course = begin(Rule.READ, 30, ONE)
    assert follow(course, elsewhere(west), elsewhere(west)) == [
        Place(HOME),
        Place(HOME, "west"),
        Place(WEST, "west"),
    ]


def test_who_does_not_route_is_not_asked_for_every_region() -> None:
    course = begin(Rule.READ, 30, ONE)
    both = elsewhere(Endpoint("west", WEST), Endpoint("central", CENTRAL))
    again = elsewhere(Endpoint("west", WEST))
    assert follow(course, both, again, Outcome(Came.UNSENT)) == [
        Place(HOME),
        Place(HOME, "west"),
        Place(WEST, "west"),
        Place(CENTRAL, "central"),
    ]


def test_a_region_that_is_fixed_is_followed_to_and_not_away_from() -> None:
    course = begin(Rule.ANYWHERE, 30, ONE, fixed="west")
    assert follow(course, elsewhere(Endpoint("central", CENTRAL))) == [Place(HOME, "west")]
    assert follow(course, elsewhere(Endpoint("west", WEST))) == [Place(HOME, "west"), Place(WEST, "west")]


def test_an_endpoint_of_a_stranger_is_named_and_not_gone_to() -> None:
    course = begin(Rule.READ, 30, ONE)
    stranger = elsewhere(Endpoint("west", "https://thief.example"))
    trip = travel(course, [(stranger, 0, 0), (stranger, 0, 0)])
    assert trip.last == Stop("https://thief.example")


def test_of_several_urls_the_next_is_tried_at_once_and_a_lost_answer_first_where_it_was() -> None:
    assert follow(begin(Rule.ANYWHERE, 30, TRUST), Outcome(Came.UNSENT)) == [Place(HOME), Place(OTHER)]
    lost = Outcome(Came.UNKNOWN)
    assert follow(begin(Rule.ANYWHERE, 30, TRUST), lost, lost, lost) == [
        Place(HOME),
        Place(HOME),
        Place(OTHER),
        Place(OTHER),
    ]


def test_a_count_whose_region_answered_is_repeated_by_its_name() -> None:
    course = begin(Rule.SAME_REGION, 30, TRUST)
    answered = Outcome(Came.UNKNOWN, region="west")
    assert follow(course, answered) == [Place(HOME), Place(HOME, "west")]
    assert follow(course, answered, Outcome(Came.UNSENT)) == [
        Place(HOME),
        Place(HOME, "west"),
        Place(OTHER, "west"),
    ]
    assert follow(course, Outcome(Came.UNKNOWN)) == [Place(HOME)]
