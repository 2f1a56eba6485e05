"""Follows one chat and prints its messages; started again, it goes on where it was stopped.

    TIDINGS_URL=http://127.0.0.1:4000 TIDINGS_TOKEN=… python example.py <session> places.json
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent

from tidings_resume import Change, Resumable


class StoredPlaces(dict[str, str]):
    """A file, replaced as a whole with each change."""

    def __init__(self, file: Path) -> None:
        super().__init__(json.loads(file.read_text()) if file.exists() else {})
        self._file = file

    def __setitem__(self, topic: str, place: str) -> None:
        super().__setitem__(topic, place)
        self._write()

    def pop(self, topic: str, *default: str | None) -> str | None:
        place = super().pop(topic, *default)
        self._write()
        return place

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self))
        new.replace(self._file)


async def follow(client: AsyncRealtimeClient, session: str, show: Callable[[Change], None], file: Path) -> Resumable:
    async def refetch(reason: str) -> None:
        # A program with a state of its own reads it anew here. This one has printed what it has printed.
        print(f"some messages may have been missed: {reason}", file=sys.stderr)

    live = Resumable(client.channel(f"messages:{session}"), refetch, places=StoredPlaces(file))
    live.on_postgres_changes(
        RealtimePostgresChangesListenEvent.Insert,
        show,
        table="chat_messages",
        filter=f"session_id=eq.{session}",
        history=20,
    )
    await live.subscribe()
    return live


async def main(session: str, file: str) -> None:
    token = os.environ["TIDINGS_TOKEN"]
    client = AsyncRealtimeClient(f"{os.environ['TIDINGS_URL']}/realtime/v1", token)
    await client.connect()
    await client.set_auth(token)
    await follow(client, session, lambda change: print(change["record"]["content"]), Path(file))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
