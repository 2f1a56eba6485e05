"""The package before 2.0, for programs without asyncio: the topic names the table, a join has no `config`, and the type of a
change is its event. It knows no token but that of the connection. `python old_style.py`; see driver.py for the rest."""

import asyncio
import os
import sys
import threading
import traceback
from importlib.metadata import version
from typing import Any

from realtime import Socket

from host import Host

ADAS_SESSION = "00000000-0000-4000-8000-0000000000a1"
BOBS_SESSION = "00000000-0000-4000-8000-0000000000b1"
WAIT_LIMIT = 15.0


async def scenario(host: Host, url: str) -> None:
    assert version("realtime").startswith("1.0."), version("realtime")
    token = await host.token(role="authenticated", sub="usr_Ada0000000000000000001", seconds=3600)
    socket = f"{url.replace('http', 'ws')}/realtime/v1/websocket?apikey={token}&vsn=1.0.0"
    news: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(event: str, payload: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(news.put_nowait, (event, payload))

    # It never ends; the process does not wait for it.
    threading.Thread(target=listen, args=(socket, tell), daemon=True).start()

    async def heard() -> tuple[str, dict[str, Any]]:
        return await asyncio.wait_for(news.get(), WAIT_LIMIT)

    event, payload = await heard()
    assert (event, payload["status"], payload["extension"]) == ("system", "ok", "postgres_changes"), payload
    (row,) = await host.insert(ADAS_SESSION, "Grüße")
    await host.insert(BOBS_SESSION, "not for Ada")
    edited = await host.update(row["id"], "edited")
    await host.delete(row["id"])
    for type, records in (
        ("INSERT", {"record": row}),
        ("UPDATE", {"record": edited, "old_record": row}),
        ("DELETE", {"old_record": edited}),
    ):
        event, payload = await heard()
        assert (event, payload["type"], payload["table"]) == (type, type, "chat_messages"), (event, payload)
        assert {key: payload[key] for key in ("record", "old_record") if key in payload} == records, payload
    assert news.empty()


def listen(url: str, tell: Any) -> None:
    """What an application of that time is: everything here blocks."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    socket = Socket(url)
    socket.connect()
    channel = socket.set_channel("realtime:public:chat_messages")
    for event in ("system", "INSERT", "UPDATE", "DELETE"):
        channel.on(event, lambda payload, event=event: tell(event, payload))
    channel.join()
    socket.listen()


async def run() -> None:
    host = await Host.open()
    try:
        await scenario(host, os.environ["TIDINGS_URL"])
        host.say({"done": "old_style"})
    except Exception:
        host.say({"failed": traceback.format_exc()})
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(run())
