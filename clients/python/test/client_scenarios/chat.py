"""An application that shows a chat: what it was given, and what it had to read anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping

from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent

from support import ADA, ADAS_SESSION, Log, Test
from tidings_resume import Change, Resumable

INSERT = RealtimePostgresChangesListenEvent.Insert
DELETE = RealtimePostgresChangesListenEvent.Delete


class Chat:
    def __init__(
        self,
        client: AsyncRealtimeClient,
        *,
        history: int | None = None,
        events: tuple[RealtimePostgresChangesListenEvent, ...] = (INSERT, DELETE),
        places: MutableMapping[str, str] | None = None,
        refetch: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.client = client
        self.rows = Log("rows")
        self.statuses = Log("statuses")
        self.systems = Log("system messages")
        self.reasons = Log("reasons to refetch")
        channel = client.channel(f"messages:{ADAS_SESSION}")
        channel.on_system(self.systems.push)
        self.live = Resumable(channel, refetch or self.refetch, places=places)
        for event in events:
            self.live.on_postgres_changes(
                event,
                self.show,
                table="chat_messages",
                filter=f"session_id=eq.{ADAS_SESSION}",
                history=history if event == INSERT else None,
            )

    @classmethod
    async def open(cls, test: Test, **options) -> Chat:
        chat = cls(await test.connect(**ADA), **options)
        await chat.live.subscribe(lambda status, error: chat.statuses.push(f"{status.value} {error}"))
        return await chat.is_live()

    async def refetch(self, reason: str) -> None:
        self.reasons.push(reason)

    def show(self, change: Change) -> None:
        record, old = change.get("record") or {}, change.get("old_record") or {}
        assert "tidings_cursor" not in record and "tidings_cursor" not in old
        self.rows.push(record["content"] if record else f"gone: {old['content']}")
        if record and record["content"] == "cannot be shown":
            raise ValueError("the application's own mistake")

    async def is_live(self, times: int = 1) -> Chat:
        def caught_up(all: list) -> bool:
            return [system.message for system in all].count("Subscribed to PostgreSQL") >= times

        await self.systems.until(caught_up, f"caught up, {times} times")
        return self

    async def shows(self, *texts: str) -> None:
        """These, each once, in this order, and nothing else. The last one is awaited."""
        await self.rows.until(lambda all: texts[-1] in all, texts[-1])
        assert self.rows.all == list(texts), self.rows.all
