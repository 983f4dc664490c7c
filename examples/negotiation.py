"""A buyer and a seller agree on a price in one conversation: offer, counter, accept.

Needs ACGS2_URLS (separated by commas), ACGS2_CA, BUYER, SELLER, and their tokens BUYER_TOKEN, SELLER_TOKEN.
"""

import asyncio
import os

from acgs2 import AgentProgram, Client, InboxMessage

LEAST, MOST = 80, 90


def seller_of(client: Client, agent: str) -> AgentProgram:
    seller = AgentProgram(client, agent)

    @seller.on("offer")
    async def offer(message: InboxMessage) -> None:
        price = message.payload["price"]
        if price >= LEAST:
            await message.reply("accept", payload={"price": price})
        else:
            await message.reply("counter", payload={"price": (price + 110) // 2})

    return seller


def buyer_of(client: Client, agent: str, agreed: asyncio.Future[int]) -> AgentProgram:
    buyer = AgentProgram(client, agent)

    @buyer.on("counter")
    async def counter(message: InboxMessage) -> None:
        print("counter", message.payload["price"])
        await message.reply("offer", payload={"price": min(message.payload["price"], MOST)})

    @buyer.on("accept")
    async def accept(message: InboxMessage) -> None:
        agreed.set_result(message.payload["price"])

    return buyer


async def main() -> None:
    urls, ca = os.environ["ACGS2_URLS"].split(","), os.environ.get("ACGS2_CA")
    buyer_id, seller_id = os.environ["BUYER"], os.environ["SELLER"]
    agreed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    as_buyer = Client(urls, zone="eu", token=os.environ["BUYER_TOKEN"], ca=ca)
    as_seller = Client(urls, zone="eu", token=os.environ["SELLER_TOKEN"], ca=ca)
    async with as_buyer, as_seller, asyncio.TaskGroup() as tasks:
        programs = [seller_of(as_seller, seller_id), buyer_of(as_buyer, buyer_id, agreed)]
        for program in programs:
            tasks.create_task(program.run())
        await as_buyer.send(
            from_agent=buyer_id, to_agent=seller_id, message_type="offer", payload={"price": 50}
        )
        print("agreed on", await agreed)
        for program in programs:
            program.stop()


asyncio.run(main())
