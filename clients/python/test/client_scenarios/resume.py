"""The line is cut, and the gateway is killed, while rows are written; then the program is started again. Each row comes once, in
order."""

import tempfile
from pathlib import Path

from support import ADA, ADAS_SESSION, Log, Test

from client_scenarios.chat import Chat
from example import follow


async def scenario(test: Test) -> None:
    host = test.host
    places: dict[str, str] = {}
    chat = await Chat.open(test, places=places)
    await host.insert(ADAS_SESSION, "one", "two")
    await chat.shows("one", "two")

    await host.cut()
    (short_lived, _) = await host.insert(ADAS_SESSION, "three", "four")
    await host.delete(short_lived["id"])
    await host.mend()
    await chat.is_live(2)
    await chat.shows("one", "two", "three", "four", "gone: three")

    await host.kill()
    await host.insert(ADAS_SESSION, "five")
    await host.revive()
    await chat.is_live(3)
    await host.insert(ADAS_SESSION, "six")
    await chat.shows("one", "two", "three", "four", "gone: three", "five", "six")
    assert chat.reasons.all == []
    await chat.client.close()

    await host.insert(ADAS_SESSION, "between two runs")
    again = await Chat.open(test, places=places)
    await host.insert(ADAS_SESSION, "seven")
    await again.shows("between two runs", "seven")
    await example(test)


async def example(test: Test) -> None:
    """The program of the documentation, started twice."""
    rows = Log("rows")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "places.json"
        for content in ("to the first run", "to the second run"):
            client = await test.connect(**ADA)
            await follow(client, ADAS_SESSION, lambda change: rows.push(change["record"]["content"]), file)
            await test.host.insert(ADAS_SESSION, content)
            await rows.until(lambda all: content in all, content)
            await client.close()
            await test.host.insert(ADAS_SESSION, f"after {content}")
    history = rows.all[: rows.all.index("to the first run")]
    assert history[-1] == "seven", history
    assert rows.all[len(history) :] == ["to the first run", "after to the first run", "to the second run"], rows.all
