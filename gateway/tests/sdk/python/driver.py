"""Runs one scenario against a gateway: `python driver.py hook`. The Rust tests start this, answer its
calls (see host.py) and expect exit code 0. Environment: TIDINGS_URL."""

import asyncio
import importlib
import logging
import os
import sys
import traceback

from host import Host
from support import Test

SCENARIOS = ("hook", "presence", "broadcast", "token", "reconnect")


class Misfits(logging.Handler):
    """The package drops messages that do not fit its models and only logs that. Here it fails the test."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "Unrecognized message format" in text or record.exc_info:
            self.seen.append(text[:2000])


async def run(name: str) -> None:
    misfits = Misfits()
    logging.getLogger("realtime").addHandler(misfits)
    host = await Host.open()
    test = Test(host, os.environ["TIDINGS_URL"])
    try:
        await importlib.import_module(f"scenarios.{name}").scenario(test)
        assert not misfits.seen, f"the package could not read: {misfits.seen}"
        host.say({"done": name})
    except Exception:
        failure = traceback.format_exc()
        host.say({"failed": f"{failure}\nthe package could not read: {misfits.seen}"})
        sys.exit(1)
    finally:
        await test.close()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python driver.py {'|'.join(SCENARIOS)}")
    asyncio.run(run(sys.argv[1]))
