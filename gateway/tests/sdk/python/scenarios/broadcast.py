"""From client to client, with and without one's own copy, acknowledged, and in order."""

from typing import Any

from support import ADA, ANON, BOB, HEARS_ANY_BROADCAST, Log, Room, Test

MANY = 300


async def scenario(test: Test) -> None:
    ada = BroadcastRoom(await test.connect(**ADA), "room", {"self": True, "ack": True})
    bob = BroadcastRoom(await test.connect(**BOB), "room", {"self": False, "ack": False})
    elsewhere = BroadcastRoom(await test.connect(**ANON), "another room", {"self": False, "ack": False})
    for room in (ada, bob, elsewhere):
        await room.subscribe()
        await room.joined()

    payload = {"text": 'Grüße 👋🏽 "x" \\ \u0000', "list": [1, -2.5, None, {"deep": []}], "big": "x" * 40_000}
    await ada.send_and_wait("cursor", payload)
    for room in (ada, bob):
        message = await room.received("cursor")
        assert {**message} == {"event": "cursor", "payload": payload}, message

    for n in range(MANY):
        await bob.channel.send_broadcast("count", {"n": n})

    def counted(all: list[Any]) -> list[int]:
        return [message["payload"]["n"] for message in all if message["event"] == "count"]

    await ada.messages.until(lambda all: len(counted(all)) >= MANY, f"{MANY} in a row")
    assert counted(ada.messages.all) == list(range(MANY))
    # What comes last proves that nothing came that should not have.
    await ada.send_and_wait("end", {})
    await bob.received("end")
    assert [message["event"] for message in bob.messages.all] == ["cursor", "end"]
    assert elsewhere.messages.all == []


class BroadcastRoom(Room):
    def __init__(self, client: Any, topic: str, config: dict[str, bool]) -> None:
        super().__init__(client, topic, {"broadcast": config})
        self.messages = Log("broadcasts")
        self.acks = Log("acknowledgements")
        for event in ("*",) if HEARS_ANY_BROADCAST else ("cursor", "count", "end"):
            self.channel.on_broadcast(event, self.messages.push)

    async def send_and_wait(self, event: str, payload: dict[str, Any]) -> None:
        """Sends, and waits for the server's acknowledgement."""
        seen = len(self.acks.all)
        push = await self.channel.push("broadcast", {"type": "broadcast", "event": event, "payload": payload})
        for status in ("ok", "error", "timeout"):
            push.receive(status, lambda *_, status=status: self.acks.push(status))
        await self.acks.until(lambda all: len(all) > seen, "an acknowledgement")
        assert self.acks.all[seen:] == ["ok"]

    async def received(self, event: str) -> Any:
        return await self.messages.until(
            lambda all: next((message for message in all if message["event"] == event), None),
            f'the broadcast "{event}"',
        )
