"""What regulations say about where data may be: data with source and date per row, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

import yaml

__all__ = ["EEA", "Regulation", "regulations"]

#: Members that a decision may name together.
EEA = "EEA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Regulation:
    """One regulation; countries are ISO 3166-1 alpha-2."""

    name: str
    title: str
    countries: frozenset[str]
    localization: bool
    instruments: frozenset[str]
    source: str
    date: date
    adequacy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    adequacy_dpf: frozenset[str] = frozenset()
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def adequate(self, country: str, on: date, eea: frozenset[str]) -> bool:
        """Return whether an adequacy decision covers a country on a day."""
        row = self.adequacy.get(country) or (self.adequacy.get(EEA) if country in eea else None)
        return row is not None and row["date"] <= on and (row["until"] is None or on < row["until"])


@cache
def regulations() -> Mapping[str, Regulation]:
    """Return every regulation by its short name."""
    text = (resources.files("acgs2.residency") / "regulations.yaml").read_text(encoding="utf-8")
    return {
        name: Regulation(
            name=name,
            title=row["title"],
            countries=frozenset(row["countries"]),
            localization=row["localization"],
            instruments=frozenset(row["instruments"]),
            source=row["source"],
            date=row["date"],
            adequacy=row.get("adequacy", {}),
            adequacy_dpf=frozenset(row.get("adequacy_dpf", {}).get("countries", ())),
            thresholds=row.get("thresholds", {}),
        )
        for name, row in yaml.safe_load(text).items()
    }
