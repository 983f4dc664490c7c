"""Every error of the driver becomes one of ours; none escapes as it is."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from acgs2.api.problems import from_database
from acgs2.errors import AcgsError, InputError, UnavailableError


def test_every_error_of_the_driver_has_a_reference_and_a_hint() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, psycopg.Error)]
    assert len(kinds) > 200
    for kind in kinds:
        mapped = from_database(kind())
        assert isinstance(mapped, AcgsError)
        assert mapped.reference
        assert mapped.hint


@pytest.mark.parametrize(
    ("error", "kind", "reference"),
    [
        (errors.DiskFull(), UnavailableError, "database-full"),
        (errors.ReadOnlySqlTransaction(), UnavailableError, "database-full"),
        (errors.AdminShutdown(), UnavailableError, "database-unavailable"),
        (errors.UntranslatableCharacter(), InputError, "invalid-value"),
        (errors.DatetimeFieldOverflow(), InputError, "invalid-value"),
    ],
)
def test_a_full_disk_is_not_the_callers_fault_and_a_bad_value_is(
    error: psycopg.Error, kind: type[AcgsError], reference: str
) -> None:
    mapped = from_database(error)
    assert isinstance(mapped, kind)
    assert mapped.reference == reference
