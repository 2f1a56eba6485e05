"""Runs scenarios against a gateway, one after the other: `python driver.py hook presence`. The Rust tests start
this, answer its calls (see host.py) and expect exit code 0. Environment: TIDINGS_URL, SDK_LINE if it must not
be the newest version of the package."""

import asyncio
import importlib
import logging
import os
import sys
import traceback

from host import Host
from support import VERSION, Test, assert_line

SCENARIOS = ("hook", "presence", "broadcast", "token", "reconnect", "tour", "sync")


class Misfits(logging.Handler):
    """The package drops messages that do not fit its models and only logs that. Here it fails the test."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "Unrecognized message format" in text or record.exc_info:
            self.seen.append(text[:2000])


async def run(names: list[str]) -> None:
    misfits = Misfits()
    logging.getLogger("realtime").addHandler(misfits)
    host = await Host.open()
    for name in names:
        test = Test(host, os.environ["TIDINGS_URL"])
        try:
            assert_line(os.environ.get("SDK_LINE", "2.34"))
            await importlib.import_module(f"scenarios.{name}").scenario(test)
            assert not misfits.seen, f"the package could not read: {misfits.seen}"
        except Exception:
            failure = f"{name}, realtime {VERSION}: {traceback.format_exc()}"
            host.say({"failed": f"{failure}\nthe package could not read: {misfits.seen}"})
            sys.exit(1)
        finally:
            await test.close()
    host.say({"done": " ".join(names)})


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[1:]) <= set(SCENARIOS):
        sys.exit(f"usage: python driver.py {'|'.join(SCENARIOS)}…")
    asyncio.run(run(sys.argv[1:]))
