"""A change of the authority: no mix of what two peers may have loaded keeps them apart."""

from __future__ import annotations

from itertools import product

import pytest

from acgs2.local.pki.change import Standing, Step, after, next_step

STEADY = Standing((3,), frozenset({3}))


def walk() -> list[Standing]:
    """Every standing of a whole change."""
    seen = [STEADY]
    for _ in Step:
        seen.append(after(seen[-1], next_step(seen[-1])))
    return seen


def apart(first: Standing, second: Standing) -> bool:
    """Whether two peers may refuse each other, each with the bundle and the certificate of either standing."""
    issuers = first.issuers | second.issuers
    views = list(product((first.trusted, second.trusted), issuers))
    return any(
        a_issuer not in b_trusted or b_issuer not in a_trusted
        for (a_trusted, a_issuer), (b_trusted, b_issuer) in product(views, views)
    )


def test_the_steps_are_taken_in_order_and_end_where_another_change_may_begin() -> None:
    steps = [next_step(standing) for standing in walk()]
    assert steps == [Step.INTRODUCE, Step.REISSUE, Step.RETIRE, Step.INTRODUCE]
    assert walk()[-1] == Standing((4,), frozenset({4}))
    assert [standing.changing for standing in walk()] == [False, True, True, False]


def test_peers_that_differ_by_a_step_accept_each_other() -> None:
    for before, then in zip(walk(), walk()[1:], strict=False):
        assert not apart(before, then)


@pytest.mark.parametrize("first", range(2))
def test_a_step_left_out_would_keep_peers_apart(first: int) -> None:
    assert apart(walk()[first], walk()[first + 2])


def test_a_certificate_that_is_needed_meanwhile_is_accepted_by_everybody() -> None:
    for before, then in zip(walk(), walk()[1:], strict=False):
        # Some may still be a step behind, and some may be given theirs before others when a step breaks off.
        for standing in (then, Standing(then.trusted, before.issuers | then.issuers)):
            assert standing.signer in before.trusted
            assert standing.signer in then.trusted


@pytest.mark.parametrize("issuers", [{3, 4}, {3}, set()])
def test_a_step_that_broke_off_is_the_next_one_again(issuers: set[int]) -> None:
    assert next_step(Standing((3, 4), frozenset(issuers))) is Step.REISSUE
    assert Standing((3, 4), frozenset(issuers)).signer == 3
