"""Who is there: two clients, a second tab, one that leaves and one whose network dies."""

from typing import Any

from support import ADA, ANON, BOB, Log, Room, Test


async def scenario(test: Test) -> None:
    ada, tab, bob = [PresenceRoom(await test.connect(**who), key) for who, key in ((ADA, "ada"), (ADA, "ada"), (BOB, "bob"))]
    await ada.subscribe()
    # An empty state is news, too.
    await ada.events.until(lambda all: ("sync",) in all, "the first sync")
    assert ada.state() == {}
    await ada.channel.track({"name": "Ada", "mood": {"since": [1, None]}})
    await ada.shows({"ada": [{"name": "Ada", "mood": {"since": [1, None]}}]})

    # Who comes later sees who is there.
    await bob.subscribe()
    await bob.shows({"ada": [{"name": "Ada", "mood": {"since": [1, None]}}]})
    await bob.channel.track({"name": "Bob"})
    await ada.events.until(lambda all: ("join", "bob", [], [{"name": "Bob"}]) in all, "Bob's coming")

    # Tracking again replaces; a second tab adds.
    await ada.channel.track({"name": "Ada", "typing": True})
    await bob.shows({"ada": [{"name": "Ada", "typing": True}], "bob": [{"name": "Bob"}]})
    await tab.subscribe()
    await tab.channel.track({"name": "Ada", "tab": 2})
    both = {"ada": [{"name": "Ada", "typing": True}, {"name": "Ada", "tab": 2}], "bob": [{"name": "Bob"}]}
    for room in (ada, bob, tab):
        await room.shows(both)

    # A connection that ends without a word.
    tab.client.auto_reconnect = False
    tab.client._ws_connection.transport.abort()
    await bob.shows({"ada": [{"name": "Ada", "typing": True}], "bob": [{"name": "Bob"}]})

    await bob.channel.untrack()
    await ada.shows({"ada": [{"name": "Ada", "typing": True}]})
    await bob.shows({"ada": [{"name": "Ada", "typing": True}]})
    assert any(event[:2] == ("leave", "bob") and event[3] == [{"name": "Bob"}] for event in ada.events.all)
    await bob.channel.track({"name": "Bob again"})
    await ada.shows({"ada": [{"name": "Ada", "typing": True}], "bob": [{"name": "Bob again"}]})
    await bob.channel.unsubscribe()
    await ada.shows({"ada": [{"name": "Ada", "typing": True}]})
    assert ada.statuses.all == [("SUBSCRIBED", "None")]

    # More than this client reads in one message.
    guests = [PresenceRoom(await test.connect(**ANON), f"guest {number}") for number in range(3)]
    there: dict[str, Any] = {"ada": [{"name": "Ada", "typing": True}]}
    for number, guest in enumerate(guests):
        await guest.subscribe()
        there[f"guest {number}"] = [{"text": str(number) * 400_000}]
        await guest.channel.track(there[f"guest {number}"][0])
        await guest.shows(there)
    late = PresenceRoom(await test.connect(**BOB), "late")
    await late.subscribe()
    await late.shows(there)


class PresenceRoom(Room):
    def __init__(self, client: Any, key: str) -> None:
        super().__init__(client, "lobby: Ümlaut", {"presence": {"key": key, "enabled": True}})
        self.client = client
        self.events = Log(f'presence seen by "{key}"')
        self.channel.on_presence_sync(lambda: self.events.push(("sync",)))
        self.channel.on_presence_join(lambda *seen: self.note("join", *seen))
        self.channel.on_presence_leave(lambda *seen: self.note("leave", *seen))

    def note(self, event: str, key: str, current: list[Any], changed: list[Any]) -> None:
        self.events.push((event, key, bare(current), bare(changed)))

    def state(self) -> dict[str, Any]:
        return {key: bare(metas) for key, metas in self.channel.presence_state().items()}

    async def shows(self, wanted: dict[str, Any]) -> None:
        """Waits until exactly these are there, whatever the server calls their metas."""
        await self.events.until(lambda _: self.state() == wanted, f"the state {wanted}"[:4000])


def bare(metas: list[Any]) -> list[Any]:
    assert all(isinstance(meta["presence_ref"], str) for meta in metas)
    return [{name: value for name, value in meta.items() if name != "presence_ref"} for meta in metas]
