"""How long a verdict takes: cold and cached, with 10, 100 and 1,000 policies, beside bare calls of Cedar.

    python -m benchmarks.policy [--verdicts 5000]

Policies are the platform's defaults and as many more as asked for, in three shapes: `spread` are about one
message type each, `general` are about every message, `tenants` are spread over tenants of 20 policies each.
Cold: every message differs, so nothing is cached. Bare: one call of cedarpy with handles that were made before,
all policies in one set, and entities that were parsed before; what we add is in the difference, and what is
left out by sorting is too. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median

import cedarpy

from acgs2.policy import AgentFacts, Bundle, Judge, Question, default_platform, load
from acgs2.policy.cedar import Asked, request_of

TENANTS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(100)]
ROUNDS = 5


def agent(number: int, tenant: int) -> AgentFacts:
    """Return one of many agents."""
    return AgentFacts(
        id=f"{number:08x}-0000-4000-9000-000000000000",
        tenant=TENANTS[tenant],
        zone="eu",
        name=f"agent-{number}",
        capabilities=frozenset({"read", "write"}),
    )


def policies(shape: str, how_many: int) -> str:
    """Return Cedar text."""
    head = '@id("all") permit (principal, action == Action::"send", resource);\n'
    if shape == "general":
        test = 'context.priority < 4 && principal.name != "nobody-{0}" && context.impact > 1{0:04}'
    else:
        test = 'context.message_type == "type-{0}" && context.impact > 900'
    rule = '@id("rule-{0}") forbid (principal, action == Action::"send", resource) when {{ ' + test + " }};\n"
    return head + "".join(rule.format(number) for number in range(how_many - 1))


def judge_of(shape: str, how_many: int) -> tuple[Judge, str]:
    """Return a judge, and everything that it knows as one text."""
    constitution = load()
    platform = Bundle.load(default_platform(), shared=constitution.groups)
    if shape == "tenants":
        each = policies("general", 20)
        tenants = {
            owner: Bundle.load(each, owner=owner, shared=constitution.groups)
            for owner in TENANTS[: max(1, how_many // 20)]
        }
        return Judge(constitution, platform, tenants), default_platform() + policies("general", how_many)
    text = policies(shape, how_many)
    bundle = Bundle.load(text, owner=TENANTS[0], shared=constitution.groups)
    return Judge(constitution, platform, {TENANTS[0]: bundle}), default_platform() + text


def questions(how_many: int) -> Iterator[Question]:
    """Yield messages of which no two are alike to policies."""
    sent = count()
    for number in range(how_many):
        yield Question(
            sender=agent(number % 64, 0),
            receiver=agent(64 + number % 61, 0),
            message_type=f"type-{next(sent) % 997}",
            zone="eu",
            priority=number % 4,
            content="a message",
            payload={"amount": number % 900},
            metadata={"trace": str(number)},
        )


def timed(act: Callable[[Question], object], asked: list[Question]) -> list[float]:
    """Return how many microseconds each took."""
    took = []
    gc.disable()
    for each in asked:
        begun = time.perf_counter_ns()
        act(each)
        took.append((time.perf_counter_ns() - begun) / 1000)
    gc.enable()
    return took


def bare(text: str, asked: list[Question]) -> list[float]:
    """Return how many microseconds a bare call takes; its inputs are made outside."""
    whole = cedarpy.PolicySet.from_str(text)
    took = []
    for each in asked:
        facts = Asked(each.sender, each.receiver, each.message_type, each.priority, 100, each.zone)
        made = request_of(facts)
        begun = time.perf_counter_ns()
        cedarpy.is_authorized(made.request, whole, made.entities)
        took.append((time.perf_counter_ns() - begun) / 1000)
    return took


def at(values: list[float], share: float) -> float:
    """Return a percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=5000, help="how many in each round")
    wanted = parser.parse_args().verdicts
    print(f"{'policies':>18} {'cold p50':>9} {'p99':>7} {'cached p50':>11} {'p99':>7} {'bare p50':>9} {'p99':>7}   us")
    for shape in ("spread", "general", "tenants"):
        for how_many in (10, 100, 1000):
            judge, text = judge_of(shape, how_many)
            cold, cached, alone = [], [], []
            for _ in range(ROUNDS):
                fresh = judge.forgetting()
                asked = list(questions(wanted))
                cold.append(timed(fresh.judge, asked))
                cached.append(timed(fresh.judge, asked))
                alone.append(bare(text, asked[: wanted // 5]))
            shown = [median(at(run, share) for run in runs) for runs in (cold, cached, alone) for share in (0.5, 0.99)]
            print("{:>10} {:>7,} {:>9.1f} {:>7.1f} {:>11.1f} {:>7.1f} {:>9.1f} {:>7.1f}".format(shape, how_many, *shown))


if __name__ == "__main__":
    main()
