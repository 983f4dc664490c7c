"""A drill ends when it is told to, also in the background of a shell."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import asyncio
from acgs2.drill.ending import end_on_sigterm

async def work():
    try:
        print("begun", flush=True)
        await asyncio.sleep(60)
    finally:
        print("undone", flush=True)

end_on_sigterm()
try:
    asyncio.run(work())
except KeyboardInterrupt:
    print("ended", flush=True)
"""


def test_sigterm_ends_it_though_sigint_was_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what ends in &
    try:
        running = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        running.terminate()
        assert running.communicate(timeout=20)[0] == "undone\nended\n"
    finally:
        running.kill()
        running.wait()
