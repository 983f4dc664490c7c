"""Who may hold what: pure decisions over the register of zones and transfers, and what regulations say."""

from acgs2.residency.decide import Decision, Register, TransferRecord, decide, register_of
from acgs2.residency.lint import Finding, lint
from acgs2.residency.regulations import Regulation, regulations

__all__ = [
    "Decision",
    "Finding",
    "Register",
    "Regulation",
    "TransferRecord",
    "decide",
    "lint",
    "register_of",
    "regulations",
]
