"""Each kind of message once, in a fixed order: what is recorded of it are the fixtures of `protocol/tests/fixtures`.
Change this, and record again."""

import asyncio

from realtime import RealtimePostgresChangesListenEvent

from support import ADA, ADAS_SESSION, BOBS_SESSION, WAIT_LIMIT, Log, Room, Session, Test

FILTER = f"session_id=eq.{ADAS_SESSION}"


async def scenario(test: Test) -> None:
    host = test.host
    client = await test.connect(**ADA)
    room = Room(
        client,
        "tour",
        {"broadcast": {"ack": True, "self": True}, "presence": {"key": "ada", "enabled": True}},
    )
    changes, heard, present = Log("changes"), Log("broadcasts"), Log("presence")
    for event, filter in (("*", FILTER), ("INSERT", None)):
        room.channel.on_postgres_changes(
            RealtimePostgresChangesListenEvent(event),
            lambda payload: changes.push(payload["data"]),
            table="chat_messages",
            schema="public",
            filter=filter,
        )
    room.channel.on_broadcast("cursor", heard.push)
    room.channel.on_presence_sync(lambda: present.push(list(room.channel.presence_state())))
    await room.subscribe()
    await room.joined()
    await room.systems.until(lambda all: all, '"Subscribed to PostgreSQL"')
    await present.until(lambda all: all, "the first state")

    (row,) = await host.insert(ADAS_SESSION, 'Grüße "x" \\ 👋🏽')
    await host.update(row["id"], "edited")
    await host.delete(row["id"])
    await changes.until(lambda all: [change["type"] for change in all][-1:] == ["DELETE"], "the DELETE")

    await room.channel.track({"name": "Ada", "mood": {"since": [1, None]}})
    await present.until(lambda all: all[-1] == ["ada"], "Ada")
    await room.channel.untrack()
    await present.until(lambda all: all[-1] == [], "nobody")

    await room.channel.send_broadcast("cursor", {"at": [1.5, None], "text": 'é"\\'})
    await heard.until(lambda all: all, "what was sent")

    await client.set_auth(await host.token(**ADA, seconds=3600))
    await room.systems.until(lambda all: len(all) >= 2, "the answer to the new token")
    refused = Session(client, BOBS_SESSION)
    await refused.subscribe()
    await refused.status("CHANNEL_ERROR")
    await refused.channel.unsubscribe()
    await room.channel.unsubscribe()
    async with asyncio.timeout(WAIT_LIMIT):
        # The answer to the leave.
        while not room.channel.is_closed:
            await asyncio.sleep(0.02)
