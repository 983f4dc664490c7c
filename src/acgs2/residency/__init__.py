"""Who may hold what: pure decisions over the register of zones and transfers, and what regulations say."""

from acgs2.residency.consent import Consent
from acgs2.residency.decide import Decision, Register, TransferRecord, decide, register_of
from acgs2.residency.lint import Finding, lint, lint_transfer
from acgs2.residency.regulations import Regulation, regulations

__all__ = [
    "Consent",
    "Decision",
    "Finding",
    "Register",
    "Regulation",
    "TransferRecord",
    "decide",
    "lint",
    "lint_transfer",
    "register_of",
    "regulations",
]
