"""Moves the writer of an Aurora global database, for zones whose database has one writer; by boto3."""

from acgs2.drivers.aurora.actor import AuroraActor

__all__ = ["AuroraActor"]
