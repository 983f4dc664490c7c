"""A client of a cloud partition's Route 53."""

from __future__ import annotations

from typing import Any

from acgs2.drivers import aws
from acgs2.drivers.dns import Partition

__all__ = ["connect"]

#: Route 53 is global within a partition; these are the regions that its endpoints are signed for.
_REGIONS: dict[Partition, str] = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}


def connect(partition: Partition = "aws", *, endpoint_url: str | None = None) -> Any:
    """Return a boto3 client.

    Args:
        partition: the cloud partition whose Route 53 it speaks to.
        endpoint_url: another server that speaks the same protocol.

    Raises:
        RuntimeFault: boto3 is not installed, or its configuration is wrong.
        InputError: the endpoint is not a URL.
    """
    return aws.connect("route53", _REGIONS[partition], endpoint_url=endpoint_url)
