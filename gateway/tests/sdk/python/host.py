"""The other end of the pipe: the Rust test. It plays everybody who is not an SDK: the third program that
writes rows, the one who signs tokens, the network that breaks. One JSON object a line; a call
`{"call":"insert","id":1,"args":{…}}` is answered by `{"id":1,"ok":…}` or `{"id":1,"error":"…"}`."""

import asyncio
import json
import sys
from typing import Any

CALL_LIMIT = 30.0
LINE_LIMIT = 16 * 1024 * 1024


class Host:
    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls) -> "Host":
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        return cls(reader)

    def say(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)

    async def insert(self, session: str, *contents: str) -> list[dict[str, Any]]:
        """Writes rows into `chat_messages`, one statement. Returns them as PostgreSQL stored them."""
        return await self._call("insert", session=session, contents=contents)

    async def update(self, id: str, content: str) -> dict[str, Any]:
        """Changes the text of a row; returns the row as it is now."""
        return await self._call("update", id=id, content=content)

    async def delete(self, *ids: str) -> None:
        await self._call("delete", ids=ids)

    async def token(self, **claims: Any) -> str:
        """Signs a token: `role`, `sub`, `seconds` and any other claims."""
        return await self._call("token", **claims)

    async def cut(self) -> None:
        """Breaks every connection to the gateway and refuses new ones, until `mend`."""
        await self._call("cut")

    async def mend(self) -> None:
        await self._call("mend")

    async def restart(self) -> None:
        """Stops the gateway in good order and starts another at the same address."""
        await self._call("restart")

    async def kill(self) -> None:
        """Kills the gateway; `revive` starts another at the same address."""
        await self._call("kill")

    async def revive(self) -> None:
        await self._call("revive")

    async def forget(self) -> None:
        """Empties the log of changes, as time does, and the gateway's memory."""
        await self._call("forget")

    async def _call(self, call: str, **args: Any) -> Any:
        self._last += 1
        answer = asyncio.get_running_loop().create_future()
        self._calls[self._last] = answer
        self.say({"call": call, "id": self._last, "args": args})
        return await asyncio.wait_for(answer, CALL_LIMIT)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            answer = self._calls.pop(message["id"], None)
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(RuntimeError(message["error"]))
            else:
                answer.set_result(message["ok"])
