"""Transfers as a register may hold them, around one moment; some lead to a region that nobody knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from acgs2.residency import TransferRecord

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
REGIONS = ("eu-central-1", "eu-west-1", "us-east-1", "ap-southeast-1")
ZONES = {"eu": ("eu-central-1", "eu-west-1"), "us": ("us-east-1",)}
moments = st.none() | st.integers(-3, 3).map(lambda n: NOW + timedelta(hours=n))
transfers = st.builds(
    TransferRecord,
    zone=st.sampled_from(sorted(ZONES)),
    to=st.sampled_from((*REGIONS, "mars-west-1")),
    instrument=st.sampled_from(["adequacy", "adequacy_dpf", "scc", "explicit_consent", "none_required"]),
    entities=st.frozensets(st.sampled_from(["agent", "user_profile"])),
    begins=moments,
    expires=moments,
    revoked=moments,
    importer_certified=st.booleans(),
)
