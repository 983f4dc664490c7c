"""From fields and options to calls, and from answers to records; the same for every kind of record."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET

from acgs2.client.answers import Reading
from acgs2.client.calls import Call, Caller
from acgs2.client.course import Rule
from acgs2.client.models import Increment, Record, SetChange
from acgs2.errors import AcgsError, ConflictError, InputError, OutcomeUnknown, UnavailableError
from acgs2.model.ids import uuid7

__all__ = [
    "ATTEMPTS",
    "Defaults",
    "ReadOptions",
    "Requests",
    "WriteOptions",
    "encoded",
    "given",
    "id_text",
    "new_id",
]

R = TypeVar("R", bound=Record)
_WORD = re.compile(r"[\x21-\x7e]{1,63}")
_HEADER = re.compile(r"[\x20-\x7e]{0,198}[\x21-\x7e]")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
#: A deadline is divided into so many attempts at least.
ATTEMPTS = 3


class ReadOptions(TypedDict, total=False):
    """What a call may say differently from its client.

    `zone` and `region` as for the client; `timeout_s` bounds all attempts and waits of the call.
    """

    zone: str
    region: str
    timeout_s: float


class WriteOptions(ReadOptions, total=False):
    """The same for a change, and the key by which a repeat is known; one is made where none is given."""

    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for calls that do not say otherwise."""

    zone: str | None
    region: str
    timeout_s: float

    def with_options(self, options: ReadOptions) -> Defaults:
        """Return what holds for a call.

        Raises:
            InputError: a value cannot be sent (`zone-invalid`, `region-invalid`, `timeout-invalid`).
        """
        made = replace(self, **{k: v for k, v in options.items() if k != "idempotency_key"})
        if made.zone is not None:
            checked(made.zone, _WORD, "zone")
        checked(made.region, _WORD, "region")
        if not isinstance(made.timeout_s, int | float) or not 0 < made.timeout_s < float("inf"):
            raise InputError(
                "timeout-invalid", "A deadline is a positive number of seconds.", hint="Leave it at 30."
            )
        return made


class _Page(msgspec.Struct, Generic[R]):
    items: list[R]
    next: str | None = None


class Requests(Generic[R]):
    """The calls about one kind of record."""

    def __init__(self, caller: Caller, defaults: Defaults, path: str, shape: type[R]) -> None:
        self._caller = caller
        self._defaults = defaults
        self._collection = f"/api/v1/{path}"
        self._shape = shape
        self._page = _Page[shape]

    async def get(self, id: UUID | str, options: ReadOptions) -> R:
        """Return a record."""
        return self._record(await self._caller.send(self._call("GET", Rule.READ, options, id=id)))

    async def list(self, tenant: UUID | str | None, limit: int, options: ReadOptions) -> AsyncIterator[R]:
        """Yield records from all pages."""
        params = {"limit": str(limit)}
        if tenant is not None:
            params["tenant"] = id_text(tenant)
        while True:
            call = self._call("GET", Rule.READ, options)
            page = (await self._caller.send(replace(call, shape=self._page, params=params))).value
            for record in page.items:
                yield record
            if page.next is None:
                return
            if page.next == params.get("next"):
                raise UnavailableError(
                    "answer-not-understood", "A page leads to itself.", hint="This is a bug of the server."
                )
            params = {**params, "next": page.next}

    async def create(self, fields: Mapping[str, Any], options: WriteOptions) -> R:
        """Store a new record; safe to repeat anywhere, for its id follows from the Idempotency-Key."""
        # But two regions that store it before they hear of each other both count what it begins with.
        counted = any(fields.get(name, UNSET) not in (UNSET, 0) for name in self._shape.counters)
        rule = Rule.SAME_REGION if counted else Rule.ANYWHERE
        call = self._call("POST", rule, options, fields=fields, key=options.get("idempotency_key"))
        return self._record(await self._caller.send(call))

    async def change(
        self, id: UUID | str, fields: Mapping[str, Any], if_match: str | None, options: WriteOptions
    ) -> R:
        """Change a record.

        Setting a field, and putting into and taking out of a set, is done twice as well as once. Counting is
        not, and neither is a change on condition: it would meet itself.
        """
        counted = any(isinstance(value, Increment) for value in fields.values())
        rule = Rule.SAME_REGION if counted or if_match is not None else Rule.ANYWHERE
        call = self._call(
            "PATCH",
            rule,
            options,
            id=id,
            fields=fields,
            if_match=if_match,
            key=options.get("idempotency_key"),
        )
        try:
            return self._record(await self._caller.send(call))
        except OutcomeUnknown as error:
            if not isinstance(error.__cause__, ConflictError):
                raise
            # Somebody was faster: another, or our own first attempt.
            seen = await self._look(call, id)
            if not isinstance(seen, Record) or not shows(seen, given(fields)):
                raise
            return seen  # type: ignore[return-value]

    async def erase(self, id: UUID | str, if_match: str | None, options: ReadOptions) -> None:
        """Erase a record for everybody; once it is erased, a repeat finds it so."""
        call = self._call("DELETE", Rule.ANYWHERE, options, id=id, if_match=if_match)
        try:
            await self._caller.send(replace(call, shape=None))
        except OutcomeUnknown as error:
            if not isinstance(error.__cause__, ConflictError):
                raise
            seen = await self._look(call, id)
            if not isinstance(seen, ConflictError) or seen.reference != "erased":
                raise

    async def _look(self, call: Call, id: UUID | str) -> R | AcgsError | None:
        """Return what a read shows within the deadline of a call, or why it shows nothing."""
        left_s = call.deadline_s - self._caller.clock()
        if left_s <= 0:
            return None
        options = ReadOptions(region=call.region, timeout_s=left_s)
        if call.zone is not None:
            options["zone"] = call.zone
        try:
            return await self.get(id, options)
        except AcgsError as error:
            return error

    def _call(
        self,
        method: str,
        rule: Rule,
        options: ReadOptions,
        *,
        id: UUID | str | None = None,
        fields: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        key: str | None = None,
    ) -> Call:
        held = self._defaults.with_options(options)
        if if_match is not None:
            checked(if_match, _HEADER, "if_match")
        if fields is not None:
            key = str(new_id(self._caller)) if key is None else checked(key, _KEY, "idempotency_key")
        return Call(
            method=method,
            route=self._collection if id is None else f"{self._collection}/{{id}}",
            path=self._collection if id is None else f"{self._collection}/{id_text(id)}",
            collection=self._collection,
            rule=rule,
            shape=self._shape,
            deadline_s=self._caller.clock() + held.timeout_s,
            attempt_s=held.timeout_s / ATTEMPTS,
            zone=held.zone,
            region=held.region,
            body=None if fields is None else encoded(given(fields)),
            idempotency_key=key,
            if_match=if_match,
        )

    def _record(self, reading: Reading) -> R:
        record = reading.value
        return msgspec.structs.replace(record, etag=reading.etag) if reading.etag else record


def new_id(caller: Caller) -> UUID:
    """Return an id that nobody else has (UUIDv7)."""
    return uuid7(int(caller.wall_clock() * 1000), os.urandom(10))


def checked(text: object, form: re.Pattern[str], what: str) -> str:
    """Return a text that a header can carry.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(text, str) or not form.fullmatch(text):
        raise InputError(
            f"{what.replace('_', '-')}-invalid",
            f"{what} is not what a request can carry.",
            hint="It is the `etag` of a record that `get` showed."
            if what == "if_match"
            else "Printable ASCII without spaces, not too long.",
        )
    return text


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not UNSET}


def shows(record: Record, fields: Mapping[str, Any]) -> bool:
    """Return whether a record is as a change leaves it; of a count nobody can tell."""
    for name, value in fields.items():
        current = getattr(record, name)
        if isinstance(value, Increment):
            return False
        if isinstance(value, SetChange):
            if not set(value.add) - set(value.remove) <= set(current) or set(value.remove) & set(current):
                return False
        elif isinstance(value, datetime):
            if value != current:
                return False
        elif msgspec.json.decode(msgspec.json.encode(value)) != msgspec.to_builtins(current):
            return False
    return True


def encoded(fields: Mapping[str, Any]) -> bytes:
    """Return a body as it is sent.

    Raises:
        InputError: JSON has nothing for a value in it (`value-not-json`).
    """
    try:
        return msgspec.json.encode(fields)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            "value-not-json",
            f"A value cannot be sent as JSON: {type(error).__name__}.",
            hint="Documents are made of dicts with text as keys, lists, text, numbers, booleans and None.",
        ) from error


def id_text(value: UUID | str) -> str:
    """Return an id as it is sent.

    Raises:
        InputError: it is no UUID (`id-invalid`).
    """
    try:
        return str(value if isinstance(value, UUID) else UUID(value))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError("id-invalid", "An id is a UUID.", hint="Take it from the record.") from error
