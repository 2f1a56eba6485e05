"""Versions of the package that this module cannot work with are refused before anything is sent."""

import importlib.metadata

import tidings_resume
from realtime import RealtimePostgresChangesListenEvent
from support import ADA, ADAS_SESSION, Test
from tidings_resume import Resumable, UnknownSdk


async def scenario(test: Test) -> None:
    client = await test.connect(**ADA)
    channel = client.channel(f"messages:{ADAS_SESSION}")

    tidings_resume.version = lambda _: "2.7.0"
    refused(channel, "does not come back after a lost connection")
    tidings_resume.version = importlib.metadata.version

    bindings, channel.postgres_changes_callbacks = channel.postgres_changes_callbacks, None
    refused(channel, "has no list of bindings")
    channel.postgres_changes_callbacks = bindings

    live = Resumable(channel, no_refetch)
    live.on_postgres_changes(RealtimePostgresChangesListenEvent.Insert, print, table="chat_messages")
    try:
        live.on_postgres_changes(RealtimePostgresChangesListenEvent.Insert, print, table="chat_messages", history=1)
    except ValueError:
        pass
    else:
        raise AssertionError("the second of two equal bindings was taken")

    # As a package would do that copies what it is given.
    update = channel.join_push.update_payload
    channel.join_push.update_payload = lambda payload: update(
        {**payload, "config": {**payload["config"], "postgres_changes": [dict(one) for one in payload["config"]["postgres_changes"]]}}
    )
    try:
        await live.subscribe()
    except UnknownSdk as error:
        assert "sends copies of its bindings" in str(error), error
    else:
        raise AssertionError("copies were not noticed")


def refused(channel, what: str) -> None:
    try:
        Resumable(channel, no_refetch)
    except UnknownSdk as error:
        assert what in str(error), error
    else:
        raise AssertionError(f"not noticed: {what}")


async def no_refetch(reason: str) -> None:
    raise AssertionError(reason)
