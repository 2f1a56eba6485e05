"""The network breaks, then the gateway is restarted. The client comes back by itself and gets what is
written from then on, each row once."""

from support import ADA, ADAS_SESSION, REJOINS, TELLS_OF_ERRORS, Session, Test


async def scenario(test: Test) -> None:
    chat = await Session(await test.connect(**ADA), ADAS_SESSION).live()
    await arrives(test, chat, "before")

    await test.host.cut()
    if TELLS_OF_ERRORS:
        await chat.status("CHANNEL_ERROR")
    await test.host.insert(ADAS_SESSION, "while away")
    await test.host.mend()
    chat = await back(test, chat, 2)
    await arrives(test, chat, "after the cut")

    await test.host.restart()
    chat = await back(test, chat, 3)
    await arrives(test, chat, "after the restart")
    assert chat.texts() == (["before", "after the cut"] if REJOINS else []) + ["after the restart"]


async def back(test: Test, chat: Session, times: int) -> Session:
    """The channel, which has come back, or where it never does, what an application then opens with a new client."""
    if REJOINS:
        return await chat.live(times)
    await chat.over()
    return await Session(await test.connect(**ADA), ADAS_SESSION).live()


async def arrives(test: Test, chat: Session, content: str) -> None:
    (row,) = await test.host.insert(ADAS_SESSION, content)
    await chat.change(row["id"])
