"""Runs one scenario against a gateway: `python driver.py resume`. The Rust tests start this, answer its calls (see host.py of the
SDK tests) and expect exit code 0. Environment: TIDINGS_URL, and PYTHONPATH with the module and the SDK tests."""

import asyncio
import importlib
import os
import sys
import traceback

from host import Host
from support import Test

SCENARIOS = ("resume", "refused", "unknown")


async def run(name: str) -> None:
    host = await Host.open()
    test = Test(host, os.environ["TIDINGS_URL"])
    try:
        await importlib.import_module(f"client_scenarios.{name}").scenario(test)
        host.say({"done": name})
    except Exception:
        host.say({"failed": traceback.format_exc()})
        sys.exit(1)
    finally:
        await test.close()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: python driver.py {'|'.join(SCENARIOS)}")
    asyncio.run(run(sys.argv[1]))
