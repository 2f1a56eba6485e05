"""The classes of the package for programs without asyncio. They refuse everything: realtime needs the other ones, and whoever
waits for these should learn it here."""

from realtime import SyncRealtimeClient

from support import Test


async def scenario(test: Test) -> None:
    client = SyncRealtimeClient(test.url, "a token")
    for attempt in (lambda: client.channel("room"), client.get_channels, client.remove_all_channels):
        try:
            attempt()
        except NotImplementedError:
            continue
        raise AssertionError("the synchronous client does something now: test it as the other one is tested")
