"""What traffic goes by while a step of a plan is the current one. Pure."""

from __future__ import annotations

import msgspec

from acgs2.plan.steps import Agreed, Plan, Shares, Step

__all__ = ["shares_at"]


def shares_at(step: Step, plan: Plan, agreed: Agreed) -> Shares:
    """Return what traffic goes by while a step is the current one, whether it is that yet or not.

    A dry run asks for steps that are to come: a failover's then find the region fenced, as they will.
    """
    traffic = agreed.traffic
    for number in range(plan.steps.index(step) + 1):
        traffic = msgspec.structs.replace(plan, at=number, state="open").effect(traffic)
    return msgspec.structs.replace(agreed, traffic=traffic).shares
