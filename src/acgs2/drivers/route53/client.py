"""A client of Route 53 as the driver wants it: every try is the driver's own, and none waits for ever."""

from __future__ import annotations

import re
from typing import Any

from acgs2.drivers.dns import Partition
from acgs2.errors import InputError, RuntimeFault

__all__ = ["connect"]

#: Route 53 is global within a partition; these are the regions that its endpoints are signed for.
_REGIONS: dict[Partition, str] = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")


def connect(partition: Partition = "aws", *, endpoint_url: str | None = None) -> Any:
    """Return a boto3 client; credentials come from where boto3 finds them.

    Args:
        partition: the cloud partition whose Route 53 it speaks to.
        endpoint_url: another server that speaks the same protocol.

    Raises:
        RuntimeFault: boto3 is not installed, or its configuration is wrong.
        InputError: the endpoint is not a URL.
    """
    try:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise RuntimeFault(
            "boto3-missing", "boto3 is not installed.", hint="pip install 'acgs2[aws]'"
        ) from error
    if endpoint_url and not _ENDPOINT.fullmatch(endpoint_url):
        raise InputError("endpoint-invalid", f"{endpoint_url} is not a URL of a server.")
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)
    try:
        return Session().client(
            "route53", region_name=_REGIONS[partition], endpoint_url=endpoint_url or None, config=once
        )
    except (BotoCoreError, ValueError) as error:
        raise RuntimeFault(
            "aws-configuration", f"boto3 cannot be set up: {error}.", hint="Check AWS_* and ~/.aws."
        ) from error
