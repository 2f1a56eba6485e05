"""The library `websockets` with asyncpg: a set of sockets for each session, and its `broadcast`, which its documentation names the
most efficient way to send to many."""

import asyncio
import json
import os
from urllib.parse import parse_qs, urlsplit

import asyncpg
import uvloop
from websockets.asyncio.server import broadcast, serve

rooms = {}


async def handle(socket):
    session = parse_qs(urlsplit(socket.request.path).query)["session"][0]
    room = rooms.setdefault(session, set())
    room.add(socket)
    try:
        await socket.send(json.dumps({"subscribed": session}))
        await socket.wait_closed()
    finally:
        room.discard(socket)
        if not room and rooms.get(session) is room:
            del rooms[session]


def take(connection, pid, channel, payload):
    session = json.loads(payload)["record"]["session_id"]
    broadcast(rooms.get(session, ()), payload)


async def main():
    host, port = os.environ["LISTEN"].rsplit(":", 1)
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    lost = asyncio.get_running_loop().create_future()
    connection.add_termination_listener(lambda _: lost.done() or lost.set_result(None))
    await connection.add_listener("chat_messages", take)
    async with serve(handle, host, int(port), compression=None):
        print("ready", flush=True)
        # What was sent while nobody listened would be lost.
        await lost


uvloop.run(main())
