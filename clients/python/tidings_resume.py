"""Channels of the Python package `realtime` that go on where they were after a lost connection or a restart of the server.

One file that needs nothing else: copy it beside your program. The package has no way to send what Tidings needs for this, so each
binding is replaced by one whose part of the join stays in reach. Where a version of the package works in another way, that is an
error at the start, and no gap later. What is promised, and what is not: docs/resume.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import version
from typing import Any

from realtime import AsyncRealtimeChannel, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates
from realtime.types import PostgresChangesCallback

logger = logging.getLogger(__name__)

# Earlier ones leave their own channels when they connect again.
OLDEST = (2, 28)
CURSOR_KEY = "tidings_cursor"
# The server lets no more of a channel start in the past.
MAX_BINDINGS = 32
REFUSED = re.compile(r"\b(cursor_expired|cursor_foreign|cursor_invalid): ")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

Change = dict[str, Any]
OnStatus = Callable[[RealtimeSubscribeStates, "Exception | None"], None]


class UnknownSdk(RuntimeError):
    """The installed package does not keep its bindings where this module can reach them."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this version of the package `realtime` {what}: take one that tidings_resume is tested with")


class _Binding(PostgresChangesCallback):
    """Its part of the join is one and the same dict for ever: whoever changes it changes the next join."""

    sent: dict[str, Any]

    @property
    def binding_filter(self) -> dict[str, Any]:
        return self.sent


class Resumable:
    """
    A channel that has not been subscribed yet: add its bindings here, and subscribe it here.

    :param refetch: Reads the application's state anew, because changes may have been missed. It is awaited once the channel is live
        again, with the reason: `cursor_expired`, `cursor_foreign` or `cursor_invalid` if the server refused to resume, `no_cursor` if
        nothing had been received yet by which to resume, `overflow` if more than `max_queued` changes came while it ran.
        Changes wait until it has returned. If it raises, it is awaited again after 1, 2, 4, … 30 s.
    :param places: Where channels have come to, by topic, kept up to date: a dict, or a mapping that is stored where the application's
        state is.
    """

    def __init__(
        self,
        channel: AsyncRealtimeChannel,
        refetch: Callable[[str], Awaitable[None]],
        *,
        places: MutableMapping[str, str] | None = None,
        max_queued: int = 10_000,
    ) -> None:
        if tuple(int(part) for part in version("realtime").split(".")[:2]) < OLDEST:
            raise UnknownSdk("does not come back after a lost connection")
        if not isinstance(getattr(channel, "postgres_changes_callbacks", None), list):
            raise UnknownSdk("has no list of bindings")
        if not isinstance(getattr(PostgresChangesCallback, "binding_filter", None), property):
            raise UnknownSdk("does not ask a binding what to send")
        self.channel = channel
        self.places: MutableMapping[str, str] = {} if places is None else places
        self._refetch = refetch
        self._max_queued = max_queued
        self._bindings: dict[str, _Binding] = {}
        self._subscribed = self._caught_up = self._continues = False
        # One for the whole channel: all bindings have the same columns, so that a change comes in one message.
        self._cursor: str | None = None
        # What came without a cursor, as the rows of a history do. Cut off before the next cursor, it comes again as a whole.
        self._held: list[Callable[[], None]] = []
        self._queue: list[Callable[[], None]] = []
        self._due: str | None = None
        self._beginnings = 0
        self._overflowed = False
        self._reading: asyncio.Task[None] | None = None
        channel.on_system(self._on_system)

    def on_postgres_changes(
        self,
        event: RealtimePostgresChangesListenEvent,
        callback: Callable[[Change], None],
        *,
        table: str,
        schema: str = "public",
        filter: str | None = None,
        history: int | None = None,
        order: str | None = None,
    ) -> Resumable:
        """Like the channel's own, but the callback gets the change itself: `type`, `record`, `old_record`, …"""
        key = json.dumps([event.value, schema, table, filter])
        if key in self._bindings:
            raise ValueError(f"there is a binding for these changes already: {key}")
        if len(self._bindings) >= MAX_BINDINGS:
            raise ValueError(f"at most {MAX_BINDINGS} bindings of a channel can resume")

        def received(payload: Any) -> None:
            self._on_change(dict(payload["data"]), callback)

        binding = _Binding(callback=received, event=event, table=table, schema=schema, filter=filter)
        ours = {"cursor": True, "history": history, "order": order}
        plain = PostgresChangesCallback.binding_filter.__get__(binding)
        binding.sent = plain | {name: value for name, value in ours.items() if value is not None}
        self._bindings[key] = binding
        self.channel.postgres_changes_callbacks.append(binding)
        return self

    async def subscribe(self, callback: OnStatus | None = None) -> AsyncRealtimeChannel:
        """Like the channel's own; the callback gets what the package says, unchanged."""

        def on_status(status: RealtimeSubscribeStates, error: Exception | None) -> None:
            self._on_status(status, error)
            if callback:
                callback(status, error)

        self._load()
        await self.channel.subscribe(on_status)
        config = self.channel.join_push.payload["config"]
        for binding in self._bindings.values():
            if not any(sent is binding.sent for sent in config["postgres_changes"]):
                await self.channel.unsubscribe()
                raise UnknownSdk("sends copies of its bindings")
        return self.channel

    def _on_status(self, status: RealtimeSubscribeStates, error: Exception | None) -> None:
        self._subscribed = status == RealtimeSubscribeStates.SUBSCRIBED
        self._caught_up = False
        self._held.clear()
        if self._subscribed:
            if self._cursor is None and self._continues and not self._due:
                self._start_over("no_cursor")
        elif refused := REFUSED.search(str(error)):
            self._start_over(refused[1])
            # 2.28 does not join again after a refusal.
            if self.channel.is_joining:
                self.channel.rejoin_timer.schedule_timeout()
        elif status == RealtimeSubscribeStates.CLOSED:
            self._queue.clear()
            if self._reading:
                self._reading.cancel()

    def _on_system(self, message: Any) -> None:
        if message.extension != "postgres_changes" or message.message == "Cursor" or not self._joined:
            return
        self._caught_up = self._continues = True
        self._release()
        if self._due and not self._reading:
            self._reading = asyncio.create_task(self._read_anew())

    @property
    def _joined(self) -> bool:
        """What comes at other times is left over from an earlier join, and will come again."""
        return self._subscribed and self.channel.is_joined

    def _on_change(self, change: Change, callback: Callable[[Change], None]) -> None:
        if not self._joined:
            return
        cursor = None
        # Other listeners of the channel are given the same records.
        for name in ("old_record", "record"):
            if CURSOR_KEY in (change.get(name) or {}):
                change[name] = dict(change[name])
                cursor = change[name].pop(CURSOR_KEY)

        def call() -> None:
            callback(change)

        if cursor is None and not self._caught_up:
            self._held.append(call)
            if len(self._held) > self._max_queued:
                self._held.clear()
                self._start_over("overflow")
            return
        self._release()
        if cursor is not None:
            self._move_to(cursor)
        self._hand_over(call)

    def _move_to(self, cursor: str | None) -> None:
        self._cursor = cursor
        for binding in self._bindings.values():
            if cursor is None:
                binding.sent.pop("since", None)
            else:
                binding.sent["since"] = cursor

    def _release(self) -> None:
        held, self._held = self._held, []
        for call in held:
            self._hand_over(call)

    def _hand_over(self, call: Callable[[], None]) -> None:
        if not self._due:
            self._call(call)
            self._save()
        elif len(self._queue) < self._max_queued and not self._overflowed:
            self._queue.append(call)
        else:
            # The next reading covers whatever comes before it begins.
            self._queue.clear()
            self._overflowed = True

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            # It would end the package's task that reads the socket.
            logger.exception("a callback of %s failed", self.channel.topic)

    def _load(self) -> None:
        place = self.places.get(self.channel.topic)
        if place is None:
            return
        try:
            bindings, cursor = json.loads(place)
        except ValueError:
            bindings, cursor = None, None
        # Made for other bindings, it would let these ones skip what they have never had.
        if bindings == sorted(self._bindings) and isinstance(cursor, str):
            self._move_to(cursor)
        else:
            self._start_over("no_cursor")

    def _save(self) -> None:
        if self._cursor is not None:
            self.places[self.channel.topic] = json.dumps([sorted(self._bindings), self._cursor])

    def _start_over(self, reason: str) -> None:
        self._move_to(None)
        self.places.pop(self.channel.topic, None)
        self._queue.clear()
        self._overflowed = False
        self._due = reason
        self._beginnings += 1

    async def _read_anew(self) -> None:
        pause = FIRST_PAUSE
        try:
            # A cursor that is refused meanwhile asks for another reading, once the channel is live again.
            while self._due and self._caught_up:
                beginning, self._overflowed = self._beginnings, False
                try:
                    await self._refetch(self._due)
                except Exception:
                    logger.exception("reading anew failed for %s; it is tried again", self.channel.topic)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                if self._beginnings != beginning:
                    continue
                if self._overflowed:
                    self._due = "overflow"
                    continue
                self._due = None
                queue, self._queue = self._queue, []
                for call in queue:
                    self._call(call)
                self._save()
        finally:
            self._reading = None
