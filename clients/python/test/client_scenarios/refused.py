"""A cursor that has expired, a history, a callback that fails, and nothing to go on from."""

import asyncio

from support import ADAS_SESSION, Log, Test

from client_scenarios.chat import INSERT, Chat


async def scenario(test: Test) -> None:
    await expired(test)
    await history(test)
    await nothing_yet(test)


async def expired(test: Test) -> None:
    host = test.host
    reasons = Log("reasons")
    read = asyncio.Event()

    async def refetch(reason: str) -> None:
        reasons.push(reason)
        if len(reasons.all) == 1:
            raise RuntimeError("the network is not there yet")
        await read.wait()

    chat = await Chat.open(test, refetch=refetch)
    await host.insert(ADAS_SESSION, "before")
    await chat.shows("before")
    await host.cut()
    await host.insert(ADAS_SESSION, "forgotten")
    await host.forget()
    await host.mend()
    await reasons.until(lambda all: len(all) == 2, "a second try")
    witness = await Chat.open(test)
    await host.insert(ADAS_SESSION, "during the refetch")
    await witness.shows("during the refetch")
    assert chat.rows.all == ["before"], chat.rows.all
    read.set()
    await chat.shows("before", "during the refetch")
    await host.insert(ADAS_SESSION, "after")
    await chat.shows("before", "during the refetch", "after")
    assert reasons.all == ["cursor_expired"] * 2, reasons.all
    assert any("cursor_expired: " in status for status in chat.statuses.all), chat.statuses.all


async def history(test: Test) -> None:
    host = test.host
    # One by one: rows of the same time have no order.
    for content in ("one", "cannot be shown", "three"):
        await host.insert(ADAS_SESSION, content)
    chat = await Chat.open(test, history=2, events=(INSERT,))
    await chat.shows("cannot be shown", "three")
    await host.cut()
    await host.insert(ADAS_SESSION, "four", "five", "six")
    await host.mend()
    # All that was missed, and not the last two.
    await chat.shows("cannot be shown", "three", "four", "five", "six")
    assert chat.reasons.all == []


async def nothing_yet(test: Test) -> None:
    """Before the first change the package has seen no cursor, so what is missed then is not known. Nor is a place that was kept for
    other bindings."""
    host = test.host
    places: dict[str, str] = {}
    chat = await Chat.open(test, places=places)
    await host.cut()
    await host.insert(ADAS_SESSION, "missed")
    await host.mend()
    await chat.reasons.until(lambda all: all == ["no_cursor"], "a refetch")
    await host.insert(ADAS_SESSION, "and live")
    await chat.shows("and live")
    assert len(places) == 1, places

    other = await Chat.open(test, places=dict(places), events=(INSERT,))
    await other.reasons.until(lambda all: all == ["no_cursor"], "a refetch")
    same = await Chat.open(test, places=places)
    await host.insert(ADAS_SESSION, "for both")
    await same.shows("for both")
    await other.shows("for both")
    assert same.reasons.all == []
