"""Immutable values that every other package speaks in: entities, records, clocks, ids."""

from acgs2.model.entity import Entity, Field, entities

__all__ = ["Entity", "Field", "entities"]
