"""The network breaks, then the gateway is restarted. The client comes back by itself and gets what is
written from then on, each row once."""

from support import ADA, ADAS_SESSION, Session, Test


async def scenario(test: Test) -> None:
    chat = await Session(await test.connect(**ADA), ADAS_SESSION).live()
    await arrives(test, chat, "before")

    await test.host.cut()
    await chat.status("CHANNEL_ERROR")
    await test.host.insert(ADAS_SESSION, "while away")
    await test.host.mend()
    await chat.live(2)
    await arrives(test, chat, "after the cut")

    await test.host.restart()
    await chat.live(3)
    await arrives(test, chat, "after the restart")
    assert chat.texts() == ["before", "after the cut", "after the restart"]


async def arrives(test: Test, chat: Session, content: str) -> None:
    (row,) = await test.host.insert(ADAS_SESSION, content)
    await chat.change(row["id"])
