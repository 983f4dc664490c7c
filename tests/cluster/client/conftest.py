"""Clients meet the region servers that the API's tests have."""

from tests.cluster.api.conftest import api

__all__ = ["api"]
