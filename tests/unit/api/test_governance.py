"""Without evidence nothing is governed."""

from __future__ import annotations

import pytest

from acgs2.api.governance import Governance
from acgs2.api.standing import Participation
from acgs2.audit.status import LogStatus
from acgs2.consensus import Documents, PaxosRegister
from acgs2.errors import UnavailableError


def refused(governance: Governance) -> str:
    with pytest.raises(UnavailableError) as caught:
        governance.require()
    return caught.value.reference


def test_a_damaged_log_is_why_nothing_is_governed_until_another_is_begun() -> None:
    log = LogStatus()
    register = PaxosRegister({}, "a")
    part = Participation(register, "a", 3.0)
    governance = Governance(Documents(register), "a", "c", 3.0, dict, log, part)
    assert refused(governance) == "constitution-unknown"
    log.damage = "It is not what was signed."
    assert refused(governance) == "audit-damaged"
    assert governance.lease_left_s() == 0
    log.begin(2, "acgs2.example/trio/a/11111111")
    assert refused(governance) == "constitution-unknown"
