"""Rows that a third program writes reach those who may see them, and nobody else."""

import re

from support import ADA, ADAS_SESSION, ANON, BOB, BOBS_SESSION, Session, Test


async def scenario(test: Test) -> None:
    host = test.host
    ada = await test.connect(**ADA)
    bob = await test.connect(**BOB)
    anon = await test.connect(**ANON)
    adas = await Session(ada, ADAS_SESSION).live()
    bobs = await Session(bob, BOBS_SESSION).live()
    both = [await Session(anon, session).live() for session in (ADAS_SESSION, BOBS_SESSION)]

    odd = 'Grüße 👋🏽, "quoted", back\\slash,\nnew line, \u2028'
    one, two = await host.insert(ADAS_SESSION, "Hello?", odd)
    (secret,) = await host.insert(BOBS_SESSION, "for Bob only")
    now = await host.update(two["id"], "edited")
    await host.delete(two["id"])
    # What is awaited here was written after everything that must not arrive.
    (marker,) = await host.insert(ADAS_SESSION, "marker")
    (bobs_marker,) = await host.insert(BOBS_SESSION, "marker")

    check(await adas.change(one["id"]), type="INSERT", record=one)
    check(await adas.change(two["id"]), type="INSERT", record=two)
    check(await adas.change(two["id"], "DELETE"), type="DELETE", old_record=now)
    check(await bobs.change(secret["id"]), type="INSERT", record=secret)
    for room in (adas, both[0]):
        await room.change(marker["id"])
        assert room.texts() == ["Hello?", odd, "marker"]
        assert [change["type"] for change in room.changes.all] == ["INSERT", "INSERT", "DELETE", "INSERT"]
    for room in (bobs, both[1]):
        await room.change(bobs_marker["id"])
        assert room.texts() == ["for Bob only", "marker"]

    await refused(test, ada, BOBS_SESSION)
    await refused(test, await test.connect(role="authenticated"), ADAS_SESSION)
    (last,) = await host.insert(ADAS_SESSION, "after the refusals")
    await adas.change(last["id"])
    assert adas.statuses.all == [("SUBSCRIBED", "None")]


async def refused(test: Test, client, session: str) -> None:
    room = Session(client, session)
    await room.subscribe()
    reason = await room.status("CHANNEL_ERROR")
    wanted = f"Unauthorized: You do not have permissions to read from this Channel topic: messages:{session}"
    assert reason == f'{{"reason": "{wanted}"}}', reason
    await room.channel.unsubscribe()
    assert room.changes.all == []


def check(change: dict, **wanted) -> None:
    """A change of the shape that applications rely on."""
    change = dict(change)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", change.pop("commit_timestamp"))
    columns = [(column["name"], column["type"]) for column in change.pop("columns")]
    assert columns[:2] == [("id", "uuid"), ("session_id", "uuid")], columns
    assert change == {"schema": "public", "table": "chat_messages", "errors": None, **wanted}
