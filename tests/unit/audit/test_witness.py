"""A witness, against logs that grow, lie, shrink and fork: what it cosigned only ever grew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.log import note_of

from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.status import LogStatus, enough
from acgs2.audit.tree import Node, consistency_proof, leaf_hash, root_of, tree_root
from acgs2.audit.witness import Cosign, Proof, Refusal, Refuse, Witness


def proof_of(entries: list[bytes], old: int) -> Proof:
    hashes = [leaf_hash(e) for e in entries]

    def node(at: Node) -> bytes:
        return root_of(hashes[at.number << at.level : (at.number + 1) << at.level])

    if not 0 < old <= len(entries):
        return Proof()
    return Proof(tree_root(old, node), tuple(consistency_proof(old, len(entries), node)))


def offered(witness: Witness, entries: list[bytes], now_s: int) -> Cosign | Refuse:
    note = note_of(entries)
    known = witness.known.get(Checkpoint.parse(note.text).origin)
    return witness.consider(note, proof_of(entries, known.checkpoint.size if known else 0), now_s)


def entries(count: int, branch: str = "") -> list[bytes]:
    return [f"{n}{branch if n >= 5 else ''}".encode() for n in range(count)]


def test_growth_is_cosigned_and_standing_still_too() -> None:
    witness = Witness()
    for count, now_s in ((3, 10), (8, 11), (8, 70), (300, 71)):
        assert isinstance(offered(witness, entries(count), now_s), Cosign)
    witness.check_invariants()


def test_a_log_that_shrank_or_forked_is_refused_with_both_signed_checkpoints() -> None:
    for count, branch, reason in (
        (6, "", Refusal.TRUNCATED),
        (8, "x", Refusal.FORK),
        (9, "x", Refusal.FORK),
        (16, "x", Refusal.FORK),
    ):
        witness = Witness()
        offered(witness, entries(8), 10)
        answer = offered(witness, entries(count, branch), 11)
        assert isinstance(answer, Refuse)
        assert (answer.reason, answer.is_misconduct) == (reason, True)
        assert answer.evidence == (str(note_of(entries(8))), str(note_of(entries(count, branch))))
        assert isinstance(offered(witness, entries(9), 12), Cosign), "the true log goes on"


def test_a_bad_proof_or_a_clock_that_went_back_is_refused_and_accuses_nobody() -> None:
    witness = Witness()
    offered(witness, entries(8), 10)
    bad = witness.consider(note_of(entries(9)), Proof(), 11)
    late = offered(witness, entries(9), 9)
    assert [(a.reason, a.is_misconduct) for a in (bad, late) if isinstance(a, Refuse)] == [
        (Refusal.BAD_PROOF, False),
        (Refusal.CLOCK, False),
    ]


steps = st.lists(
    st.tuples(
        st.integers(1, 20),
        st.sampled_from(["", "", "x"]),
        st.integers(0, 30),
        st.sampled_from(["offer", "offer", "forget"]),
    ),
    max_size=25,
)


@given(steps)
def test_whatever_is_offered_what_was_cosigned_only_grew(told: list[tuple[int, str, int, str]]) -> None:
    one, other = Witness(), Witness()
    for count, branch, now_s, act in told:
        if act == "forget":
            cosigned = one.cosigned
            one = one.restored([other])
            one.cosigned = [k for k in cosigned if k in other.cosigned]
        else:
            answer = offered(other, entries(count, branch), now_s)
            if isinstance(answer, Cosign):
                offered(one, entries(count, branch), now_s)
        one.check_invariants()
        other.check_invariants()


def test_a_checkpoint_is_witnessed_by_two_others_or_by_as_many_as_there_are() -> None:
    assert [enough(n) for n in (0, 1, 2, 11)] == [0, 1, 2, 2]
    status = LogStatus(needed=2)
    status.begin(1, "log")
    status.grew(10)
    status.count(5, "a", 1)
    status.count(5, "a", 2)
    assert status.witnessed == 0
    status.count(7, "b", 2)
    assert status.witnessed == 0, "two witnesses of two checkpoints vouch for neither"
    status.count(5, "b", 2)
    assert (status.witnessed, status.cosigned) == (5, {"a": (5, 2), "b": (7, 2)})
    status.count(4, "c", 3)
    assert status.witnessed == 5
    alone = LogStatus(needed=0)
    alone.grew(3)
    assert alone.witnessed == 3
