"""Carries DNS plans out on Amazon Route 53, by boto3, which the extra `acgs2[aws]` brings."""

from acgs2.drivers.aws import Patience, Try
from acgs2.drivers.route53.apply import apply
from acgs2.drivers.route53.client import connect
from acgs2.drivers.route53.report import Call, Report

__all__ = ["Call", "Patience", "Report", "Try", "apply", "connect"]
