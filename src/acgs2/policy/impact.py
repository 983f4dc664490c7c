"""How much a message weighs: the weights of the features that hold, added up, in thousandths."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import isnan
from typing import Any

from acgs2.policy.features import WHOLE, Condition, Impact, PayloadTest
from acgs2.policy.question import AgentFacts, Question
from acgs2.policy.verdict import Factor

__all__ = ["score"]

#: Of what `*` stands for, so many are looked at; a payload with more counts as if one of them matched.
_MOST_VALUES = 1000


def score(impact: Impact, question: Question) -> tuple[int, tuple[Factor, ...]]:
    """Return the score from 0 to 1000 and the factors that make it; never raises, whatever was sent."""
    factors = tuple(
        Factor(feature.name, feature.weight, why)
        for feature in impact.features
        if (why := _holds(feature.when, question)) is not None
    )
    return min(WHOLE, sum(factor.share for factor in factors)), factors


def _holds(when: Condition, question: Question) -> str | None:
    """Return what was seen where all of a condition holds, else None."""
    seen: list[str] = []
    for found in _each(when, question):
        if found is None:
            return None
        seen.append(found)
    return ", ".join(seen)


def _each(when: Condition, question: Question) -> Iterator[str | None]:
    """Yield for each thing that the condition says what was seen, None where it does not hold."""
    receiver = question.receiver
    if when.message_type is not None:
        yield _one_of("message_type", question.message_type, when.message_type)
    if when.priority_at_least is not None:
        yield f"priority {question.priority}" if question.priority >= when.priority_at_least else None
    if when.crosses_tenants is not None:
        yield _flag("tenants", question.crosses_tenants, when.crosses_tenants)
    if when.crosses_zones is not None:
        yield _flag("zones", question.crosses_zones, when.crosses_zones)
    if when.to_topic is not None:
        to_topic = not isinstance(receiver, AgentFacts)
        yield ("to a topic" if to_topic else "to an agent") if to_topic == when.to_topic else None
    if when.content_longer_than is not None:
        length = len(question.content)
        yield f"content of {length} characters" if length > when.content_longer_than else None
    if when.sender_can is not None:
        yield _can("sender", question.sender.capabilities, when.sender_can)
    if when.receiver_can is not None:
        can = receiver.capabilities if isinstance(receiver, AgentFacts) else frozenset()
        yield _can("receiver", can, when.receiver_can)
    if when.metadata is not None:
        metadata = question.metadata if isinstance(question.metadata, dict) else {}
        key = when.metadata.key
        yield _one_of(f"metadata {key}", metadata[key], when.metadata.one_of) if key in metadata else None
    if when.payload is not None:
        yield _payload(when.payload, question.payload)


def _flag(what: str, found: bool, wanted: bool) -> str | None:
    return (f"crosses {what}" if found else f"within its {what}") if found == wanted else None


def _one_of(what: str, found: Any, wanted: tuple[str, ...]) -> str | None:
    if not isinstance(found, str):
        return f"{what} is no text"
    return f"{what} {found}" if found in wanted else None


def _can(who: str, capabilities: frozenset[str], wanted: tuple[str, ...]) -> str | None:
    found = [each for each in wanted if each in capabilities]
    return f"{who} can {', '.join(found)}" if found else None


def _payload(test: PayloadTest, payload: Any) -> str | None:
    values = list(islice(_values(payload, test.path.split(".")), _MOST_VALUES + 1))
    what = f"payload {test.path}"
    if test.exists is not None:
        return (
            (f"{what} is there" if values else f"{what} is not there")
            if bool(values) == test.exists
            else None
        )
    if len(values) > _MOST_VALUES:
        return f"{what} has more than {_MOST_VALUES} values"
    for value in values:
        found = _one_of(what, value, test.one_of) if test.one_of is not None else _compared(test, what, value)
        if found is not None:
            return found
    return None


def _compared(test: PayloadTest, what: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_nan(value):
        return f"{what} is no number"
    matches = (
        (test.at_least is not None and value >= test.at_least)
        or (test.above is not None and value > test.above)
        or (test.at_most is not None and value <= test.at_most)
        or (test.below is not None and value < test.below)
    )
    return f"{what} {_bound(test)}" if matches else None


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and isnan(value)  # a whole number can be too large to ask


def _bound(test: PayloadTest) -> str:
    """Say the bound that was reached, never the value: an explanation holds no personal data."""
    if test.at_least is not None:
        return f"is at least {test.at_least}"
    if test.above is not None:
        return f"is above {test.above}"
    return f"is at most {test.at_most}" if test.at_most is not None else f"is below {test.below}"


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    """Yield what stands at a path; `*` is every element of a list or value of an object."""
    if not path:
        yield value
        return
    here, rest = path[0], path[1:]
    if here == "*":
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for each in below:
            yield from _values(each, rest)
    elif isinstance(value, dict) and here in value:
        yield from _values(value[here], rest)
