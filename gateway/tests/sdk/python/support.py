"""What the scenarios share: clients, channels that remember everything that happened to them, and waits
that end when what is wanted is there, or fail and tell what was there instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimePostgresChangesListenEvent

from host import Host

VERSION = version("realtime")

# In what the lines that are tested differ; which of the versions between them was the first is not looked for.
_CURRENT = not VERSION.startswith("2.7.")
# A channel tells what happens to it after its join.
TELLS_OF_ERRORS = _CURRENT
# A join says whether the channel wants to hear of presence.
SAYS_PRESENCE_ENABLED = _CURRENT
# A listener may ask for broadcasts of any event.
HEARS_ANY_BROADCAST = _CURRENT
# A channel joins again when the connection is back. In 2.7 it also leaves just before, and takes the answer to that for its end.
REJOINS = _CURRENT

ADA = {"role": "authenticated", "sub": "usr_Ada0000000000000000001"}
BOB = {"role": "authenticated", "sub": "usr_Bob0000000000000000002"}
ANON = {"role": "anon"}
ADAS_SESSION = "00000000-0000-4000-8000-0000000000a1"
BOBS_SESSION = "00000000-0000-4000-8000-0000000000b1"

WAIT_LIMIT = 15.0


def assert_line(line: str) -> None:
    """That the right packages were found."""
    assert VERSION.startswith(f"{line}."), f"this is realtime {VERSION}, and {line} was wanted"


class Log:
    """Things that happened, in order, and whoever waits for one of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.all: list[Any] = []
        self._news = asyncio.Event()

    def push(self, entry: Any) -> None:
        self.all.append(entry)
        self._news.set()

    async def until(self, find: Callable[[list[Any]], Any], what: str) -> Any:
        """Returns what `find(all)` returns as soon as that is true."""

        async def look() -> Any:
            while not (found := find(self.all)):
                self._news.clear()
                await self._news.wait()
            return found

        try:
            return await asyncio.wait_for(look(), WAIT_LIMIT)
        except asyncio.TimeoutError:
            seen = str(self.all)[:4000]
            raise AssertionError(f"{self.name}: waited {WAIT_LIMIT} s for {what}. Seen: {seen}") from None


class Test:
    def __init__(self, host: Host, url: str) -> None:
        self.host = host
        self.url = f"{url}/realtime/v1"
        self.clients: list[AsyncRealtimeClient] = []

    async def connect(self, **claims: Any) -> AsyncRealtimeClient:
        """A stock client of a user: the socket opens with a public key, the channels carry the user's token."""
        client = AsyncRealtimeClient(self.url, await self.host.token(seconds=3600, **ANON))
        self.clients.append(client)
        await client.connect()
        await client.set_auth(await self.host.token(**{"seconds": 3600, **claims}))
        return client

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


class Room:
    """A channel with its history: `statuses` and `systems`."""

    def __init__(self, client: AsyncRealtimeClient, topic: str, config: dict[str, Any] | None = None) -> None:
        whole = {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
            "private": False,
            **(config or {}),
        }
        if not SAYS_PRESENCE_ENABLED:
            whole["presence"] = {"key": whole["presence"]["key"]}
        self.channel: AsyncRealtimeChannel = client.channel(topic, {"config": whole})
        self.statuses = Log(f"status of {topic}")
        self.systems = Log(f"system messages on {topic}")
        self.channel.on_system(self.systems.push)

    async def subscribe(self) -> None:
        await self.channel.subscribe(lambda status, error: self.statuses.push((status.value, str(error))))

    async def joined(self, times: int = 1) -> None:
        def joins(all: list[Any]) -> bool:
            return [status for status, _ in all].count("SUBSCRIBED") >= times

        await self.statuses.until(joins, f"SUBSCRIBED, {times} times")

    async def status(self, wanted: str) -> str:
        """Waits for a status and returns what was said with it."""
        _, error = await self.statuses.until(
            lambda all: next((entry for entry in all if entry[0] == wanted), None), wanted
        )
        return error

    async def over(self) -> None:
        """Waits until the package has given the channel up."""
        if TELLS_OF_ERRORS:
            await self.status("CLOSED")
            return
        async with asyncio.timeout(WAIT_LIMIT):
            while not self.channel.is_closed:
                await asyncio.sleep(0.02)


class Session(Room):
    """The ChatTwelve hook: INSERT and DELETE of one session's messages."""

    def __init__(self, client: AsyncRealtimeClient, session: str) -> None:
        super().__init__(client, f"messages:{session}")
        self.changes = Log(f"changes of {session}")
        for event in (RealtimePostgresChangesListenEvent.Insert, RealtimePostgresChangesListenEvent.Delete):
            self.channel.on_postgres_changes(
                event,
                lambda payload: self.changes.push(payload["data"]),
                table="chat_messages",
                schema="public",
                filter=f"session_id=eq.{session}",
            )

    async def live(self, times: int = 1) -> "Session":
        """Joined for the `times`-th time, and every change committed from now on arrives."""
        if not self.statuses.all:
            await self.subscribe()
        await self.joined(times)

        def ok(all: list[Any]) -> bool:
            return [system.extension for system in all].count("postgres_changes") >= times

        await self.systems.until(ok, f'"Subscribed to PostgreSQL", {times} times')
        return self

    async def change(self, id: str, type: str = "INSERT") -> dict[str, Any]:
        record = "old_record" if type == "DELETE" else "record"
        return await self.changes.until(
            lambda all: next((one for one in all if one["type"] == type and one[record]["id"] == id), None),
            f"the {type} of {id}",
        )

    def texts(self) -> list[str]:
        """The texts of the rows that were inserted, in the order of arrival."""
        return [change["record"]["content"] for change in self.changes.all if change["type"] == "INSERT"]
