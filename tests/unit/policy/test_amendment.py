"""Amendments, and attacks on them."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.errors import AcgsError, ConstitutionError
from acgs2.policy import Constitution, Signature, load, of
from acgs2.policy import founded as found
from acgs2.policy.amendment import check, public_key, sign, statement

KEYS = {
    each.name: Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    for number, each in enumerate(load().amendment.amenders)
}
EVE, FAY, GIL = KEYS
MALLORY = Ed25519PrivateKey.from_private_bytes(b"m" * 32)
ONE = found(load(), {name: public_key(key) for name, key in KEYS.items()})


def changed(base: Constitution, **changes) -> Constitution:
    return of(json.loads(base.canonical) | {"version": base.version + 1} | changes)


TWO = changed(ONE, preamble="Better said.")


def signed(by, current=ONE, proposed=TWO, keys=KEYS):
    return [sign(current, proposed, name, keys[name]) for name in by]


def refused(current, proposed, signatures) -> str:
    with pytest.raises(AcgsError) as caught:
        check(current, proposed, signatures)
    assert caught.value.hint
    return caught.value.reference


def test_two_of_three_amend_it():
    made = check(ONE, TWO, signed([FAY, EVE]))
    assert (made.base_digest, made.digest, made.version) == (ONE.digest, TWO.digest, 2)
    assert [each.amender for each in made.signatures] == [EVE, FAY]


@settings(deadline=None)
@given(st.lists(st.sampled_from([EVE, FAY, GIL])))
def test_enough_different_amenders_and_nothing_else(by):
    if len(set(by)) == len(by) >= 2:
        check(ONE, TWO, signed(by))
    else:
        assert refused(ONE, TWO, signed(by)) in ("signer-repeated", "signatures-missing")


@settings(deadline=None)
@given(st.sampled_from([0, 1]), st.integers(0, 43 * 2), st.sampled_from("ABCxyz019-_=\n "))
def test_a_changed_signature_is_refused(which, at, letter):
    good = signed([EVE, FAY])
    text = good[which].signature
    at += len("ed25519:")
    bad = text[:at] + letter + text[at + 1 :]
    if bad != text:
        good[which] = Signature(good[which].amender, bad)
        assert refused(ONE, TWO, good) == "signature-invalid"


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "rsa:AAAA", "ed25519:" + "A" * 86, "ed25519:" + "é" * 86, "x" * 10_000]
)
def test_what_is_no_signature_is_refused(text):
    assert refused(ONE, TWO, [*signed([EVE]), Signature(FAY, text)]) == "signature-invalid"


def test_one_bad_signature_among_enough_good_ones_is_refused():
    mallory = sign(ONE, TWO, "mallory", MALLORY)
    assert refused(ONE, TWO, [*signed([EVE, FAY]), mallory]) == "signer-unknown"
    forged = Signature(GIL, mallory.signature)
    assert refused(ONE, TWO, [*signed([EVE, FAY]), forged]) == "signature-invalid"


def test_one_amender_under_another_name_is_refused():
    twice = [*signed([EVE]), Signature(FAY, signed([EVE])[0].signature)]
    assert refused(ONE, TWO, twice) == "signature-invalid"


def test_a_signature_of_other_contents_does_not_count():
    other = changed(ONE, preamble="Worse.")
    assert refused(ONE, other, signed([EVE, FAY])) == "signature-invalid"


def test_an_old_amendment_is_not_replayed():
    three = changed(TWO, preamble="Best.")
    assert refused(TWO, TWO, signed([EVE, FAY])) == "version-not-next"
    # Back to what TWO said, as version 4: what was signed for version 2 is worth nothing.
    again = changed(three, preamble=TWO.preamble)
    assert refused(three, again, signed([EVE, FAY])) == "signature-invalid"
    # Another history with the same numbers: it was signed over another base.
    other_two = changed(ONE, preamble="A fork.")
    three_of_other = changed(other_two, preamble="Best.")
    given_there = signed([EVE, FAY], TWO, three)
    assert three_of_other.digest == three.digest
    assert refused(other_two, three_of_other, given_there) == "signature-invalid"


def test_another_base_or_id_is_refused():
    assert refused(ONE, changed(TWO), signed([EVE, FAY])) == "version-not-next"
    assert refused(ONE, ONE, signed([EVE, FAY])) == "version-not-next"
    assert refused(ONE, changed(ONE, id="0" * 16), signed([EVE, FAY])) == "another-constitution"


def amendment_rule(approvals: int, **keys: Ed25519PrivateKey | str):
    return {
        "approvals": approvals,
        "amenders": [
            {"name": name, "key": key if isinstance(key, str) else public_key(key)}
            for name, key in keys.items()
        ],
    }


def test_who_is_added_by_the_amendment_does_not_count_for_it():
    proposed = changed(ONE, amendment=amendment_rule(1, mallory=MALLORY))
    theirs = sign(ONE, proposed, "mallory", MALLORY)
    assert refused(ONE, proposed, [theirs]) == "signer-unknown"
    assert refused(ONE, proposed, [*signed([EVE], ONE, proposed), theirs]) == "signer-unknown"
    # A name that is known, with a key that the amendment gives it.
    stolen = changed(ONE, amendment=amendment_rule(1, **{EVE: MALLORY}))
    assert refused(ONE, stolen, [sign(ONE, stolen, EVE, MALLORY)]) == "signature-invalid"


def test_fewer_signatures_count_only_from_the_next_amendment_on():
    easier = changed(ONE, amendment=amendment_rule(1, **KEYS))
    assert refused(ONE, easier, signed([EVE], ONE, easier)) == "signatures-missing"
    check(ONE, easier, signed([EVE, GIL], ONE, easier))
    three = changed(easier, preamble="Alone.")
    check(easier, three, signed([EVE], easier, three))


def test_who_is_taken_out_still_counts_for_that():
    without = changed(ONE, amendment=amendment_rule(1, **{FAY: KEYS[FAY]}))
    check(ONE, without, signed([EVE, GIL], ONE, without))
    three = changed(without, preamble="Without her.")
    assert refused(without, three, signed([EVE], without, three)) == "signer-unknown"


def test_two_names_with_one_key_are_no_constitution():
    with pytest.raises(ConstitutionError, match="one key"):
        changed(ONE, amendment=amendment_rule(2, a=MALLORY, b=MALLORY))


def test_local_keys_neither_amend_nor_are_amended_to():
    proposed = changed(load())
    assert refused(load(), proposed, []) == "amender-without-key"
    assert (
        refused(load(), changed(load(), amendment=amendment_rule(1, **KEYS)), signed([EVE]))
        == "signer-unknown"
    )
    assert (
        refused(ONE, changed(ONE, amendment=amendment_rule(1, eve="local")), signed([EVE]))
        == "amender-without-key"
    )


def test_what_is_signed_says_what_it_is():
    domain, _, body = statement(ONE, TWO).partition(b"\n")
    assert domain == b"acgs2 constitution amendment v1"
    assert json.loads(body) == {
        "id": ONE.id,
        "base": {"version": 1, "digest": ONE.digest},
        "proposed": {"version": 2, "digest": TWO.digest},
    }
