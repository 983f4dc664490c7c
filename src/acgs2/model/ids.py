"""Identifiers: UUIDv7 (RFC 9562) for new records, derived UUIDs where a repeat must find the same record."""

from __future__ import annotations

from uuid import UUID, uuid5

__all__ = ["request_key", "uuid7"]

_REQUESTS = UUID("0a2f6f3e-7d55-5c7b-9f49-5a1d6f0c9b11")


def uuid7(now_ms: int, random: bytes) -> UUID:
    """Return a UUIDv7 for a moment in milliseconds since the epoch and ten random bytes."""
    value = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | 7 << 76
    return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


def request_key(principal: str, entity: str, idempotency_key: str) -> UUID:
    """Return the key of the record that a request creates: the same in whichever region it is repeated."""
    return uuid5(_REQUESTS, f"{principal}\n{entity}\n{idempotency_key}")
