"""A client of one of Amazon's services: every try is the driver's own, and none waits for ever."""

from __future__ import annotations

import re
from typing import Any

from acgs2.errors import InputError, RuntimeFault

__all__ = ["connect"]

_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")


def connect(service: str, region: str, *, endpoint_url: str | None = None) -> Any:
    """Return a boto3 client; credentials come from where boto3 finds them.

    Args:
        service: as boto3 calls it.
        region: that is spoken to.
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
        return Session().client(service, region_name=region, endpoint_url=endpoint_url or None, config=once)
    except (BotoCoreError, ValueError) as error:
        raise RuntimeFault(
            "aws-configuration", f"boto3 cannot be set up: {error}.", hint="Check AWS_* and ~/.aws."
        ) from error
