"""A token that is replaced on an open channel, and one that runs out."""

import json
import re

from support import ADA, ADAS_SESSION, TELLS_OF_ERRORS, Session, Test

SHORT_SECONDS = 4


async def scenario(test: Test) -> None:
    host = test.host
    renewing = await test.connect(**ADA, seconds=SHORT_SECONDS)
    forgetful = await test.connect(**ADA, seconds=SHORT_SECONDS)
    renewed = await Session(renewing, ADAS_SESSION).live()
    expiring = await Session(forgetful, ADAS_SESSION).live()
    (before,) = await host.insert(ADAS_SESSION, "before")
    await renewed.change(before["id"])
    await expiring.change(before["id"])

    # The server tells a second time that changes flow: now under the new token.
    await renewing.set_auth(await host.token(**ADA, seconds=3600))
    await renewed.systems.until(lambda all: len(all) >= 2, "the answer to the new token")

    if TELLS_OF_ERRORS:
        told = json.loads(await expiring.status("CHANNEL_ERROR"))
        assert re.fullmatch(r"Token has expired \d+ seconds ago", told["message"]), told
        assert (told["extension"], told["status"], told["channel"]) == ("system", "error", f"messages:{ADAS_SESSION}")
    await expiring.over()

    (after,) = await host.insert(ADAS_SESSION, "after")
    await renewed.change(after["id"])
    assert renewed.texts() == ["before", "after"]
    assert expiring.texts() == ["before"]
    assert renewed.statuses.all == [("SUBSCRIBED", "None")]
