"""ACGS-2: a governed agent bus over regional PostgreSQL, with residency enforced by the database."""

__version__ = "0.1.0"
