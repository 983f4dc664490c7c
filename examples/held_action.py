"""A payment is held; two people who were named look at it and let it go; then the bank hears of it.

Needs ACGS2_URLS (separated by commas), ACGS2_CA, PAYER, BANK, their tokens PAYER_TOKEN, BANK_TOKEN, and the
tokens of two approvers, FIRST_TOKEN and SECOND_TOKEN.
"""

import os

from acgs2 import SyncClient

URLS, CA = os.environ["ACGS2_URLS"].split(","), os.environ.get("ACGS2_CA")


def client_of(who: str) -> SyncClient:
    return SyncClient(URLS, zone="eu", token=os.environ[f"{who}_TOKEN"], ca=CA)


with client_of("PAYER") as payer, client_of("FIRST") as first, client_of("SECOND") as second:
    receipt = payer.send(
        from_agent=os.environ["PAYER"],
        to_agent=os.environ["BANK"],
        message_type="payment",
        payload={"amount": 50_000},
        priority=3,
    )
    print(receipt.decision, receipt.basis["reasons"])

    for person in (first, second):
        held = person.deliberations.get(receipt.message_id)
        print("asked for", held.message_type, held.payload)
        person.approve(held.message_id, reason="I called the payer.")

    print(payer.wait_for_verdict(receipt.message_id, timeout_s=30).state)

with client_of("BANK") as bank:
    for message in bank.inbox(os.environ["BANK"]):
        print(message.message_type, message.payload)
        message.acknowledge()
        break
