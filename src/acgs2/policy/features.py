"""What the constitution says about impact: declared features with weights, in thousandths."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic import model_validator as check

__all__ = ["Condition", "Feature", "Impact", "MetadataTest", "PayloadTest", "Section", "Thousandths"]

#: What 1 is: scores are whole numbers of thousandths, so that every machine adds them up alike.
WHOLE = 1000


class Section(BaseModel):
    """What every model of a constitution has in common: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _thousandths(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    made = round(value * WHOLE)
    if abs(made - value * WHOLE) > 1e-6:
        raise ValueError("a number with at most three decimals")
    return made


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("a finite number")
    return value


Thousandths = Annotated[int, BeforeValidator(_thousandths)]
Whole = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
Number = Annotated[int | float, BeforeValidator(_number)]
Word = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=1000)]
Flag = Annotated[bool, Field(strict=True)]
Path = Annotated[str, Field(strict=True, pattern=r"^[^.\x00]{1,100}(\.[^.\x00]{1,100}){0,7}$")]


class PayloadTest(Section):
    """A test of what stands at a path of the payload; `*` in the path is every element.

    Where nothing stands it does not hold. Where something stands that cannot be compared, it holds: nobody
    makes a score smaller by writing a number as text.
    """

    path: Path
    at_least: Number | None = None
    above: Number | None = None
    at_most: Number | None = None
    below: Number | None = None
    one_of: Words | None = None
    exists: Flag | None = None

    @check(mode="after")
    def _one(self) -> Self:
        tests = [name for name in type(self).model_fields if name != "path"]
        if sum(getattr(self, name) is not None for name in tests) != 1:
            raise ValueError(f"one of {', '.join(tests)}")
        return self


class MetadataTest(Section):
    """A test of one key of the metadata."""

    key: Word
    one_of: Words


class Condition(Section):
    """When a feature counts: everything that is said must hold."""

    message_type: Words | None = None
    priority_at_least: Annotated[int, Field(strict=True, ge=1, le=3)] | None = None
    payload: PayloadTest | None = None
    metadata: MetadataTest | None = None
    sender_can: Words | None = None
    receiver_can: Words | None = None
    crosses_tenants: Flag | None = None
    crosses_zones: Flag | None = None
    to_topic: Flag | None = None
    content_longer_than: Whole | None = None

    @check(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("a feature says when it counts")
        return self


class Feature(Section):
    """Something about a message that makes it weigh more."""

    name: Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    weight: Thousandths
    when: Condition


class Impact(Section):
    """How much a message weighs: the weights of the features that hold, added up, 1 at most."""

    features: tuple[Feature, ...] = Field(max_length=200)

    @check(mode="after")
    def _distinct(self) -> Self:
        if len({feature.name for feature in self.features}) < len(self.features):
            raise ValueError("two features have one name")
        return self
