"""Immutable values that every other package speaks in: entities, clocks, names. No I/O but reading declarations."""

from acgs2.model.entity import Entity, Field, entities

__all__ = ["Entity", "Field", "entities"]
