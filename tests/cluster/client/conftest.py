"""Clients meet the region servers that the API's tests have."""

from tests.cluster.api.conftest import api, otlp

__all__ = ["api", "otlp"]
