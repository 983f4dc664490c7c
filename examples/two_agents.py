"""Two agents talk: each has its own token and may be reached by its own region; their inbox may move between.

Needs ACGS2_URLS (two, separated by a comma), ACGS2_CA, and ANN, BEN and their tokens ANN_TOKEN, BEN_TOKEN.
"""

import asyncio
import os

from acgs2 import AgentProgram, Client, InboxMessage


async def main() -> None:
    ann, ben = os.environ["ANN"], os.environ["BEN"]
    west, central = os.environ["ACGS2_URLS"].split(",")
    ca = os.environ.get("ACGS2_CA")
    # Each asks the region that is near; where the inbox is served elsewhere, the client follows.
    as_ann = Client([west, central], zone="eu", token=os.environ["ANN_TOKEN"], ca=ca)
    as_ben = Client([central, west], zone="eu", token=os.environ["BEN_TOKEN"], ca=ca)
    async with as_ann, as_ben, asyncio.TaskGroup() as tasks:
        program = AgentProgram(as_ben, ben)

        @program.on("question")
        async def answer(message: InboxMessage) -> None:
            await message.reply("answer", content=message.content.upper())

        tasks.create_task(program.run())
        receipt = await as_ann.send(from_agent=ann, to_agent=ben, message_type="question", content="hello")
        print("durable in", *sorted(receipt.durable_in))
        async for message in as_ann.inbox(ann):
            print(message.message_type, message.content)
            await message.acknowledge()
            break
        program.stop()


asyncio.run(main())
