"""How Amazon's services are called, by boto3, which the extra `acgs2[aws]` brings."""

from acgs2.drivers.aws.caller import Caller, Unsure, part
from acgs2.drivers.aws.client import connect
from acgs2.drivers.aws.patience import Patience, Try

__all__ = ["Caller", "Patience", "Try", "Unsure", "connect", "part"]
