"""The HTTP libraries log too: over a real connection, at their most talkative."""

import asyncio
import logging

import pytest

from kpi_pipeline.bison import (
    BisonClient,
    BisonInstance,
    RejectedKey,
    Unavailable,
)
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    MASTER_KEY,
    WORKSPACE_KEY,
    LocalLock,
    RecordingPacing,
    run,
)

BODY = b'{"data": {"success": false, "message": "Unauthenticated."}}'
RESPONSE = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


def test_no_key_shows_up_in_any_log_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(RESPONSE % (len(BODY), BODY))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def work() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            async with BisonClient(
                BisonInstance("main", f"http://{host}:{port}", MASTER_KEY),
                pacing=RecordingPacing(),
                master_lock=LocalLock(),
            ) as client:
                with pytest.raises(RejectedKey):
                    await client.check_key(HARBOR, WORKSPACE_KEY)
                with pytest.raises(RejectedKey):
                    await client.list_workspaces()

    with caplog.at_level(logging.DEBUG):
        run(work())
    assert [b"Ww5Ww5" in head for head in heads] == [True, False]
    assert [b"Mm3Mm3" in head for head in heads] == [False, True]
    names = {record.name.partition(".")[0] for record in caplog.records}
    assert {"httpx", "httpcore"} <= names
    assert "Ww5" not in caplog.text
    assert "Mm3" not in caplog.text


def test_a_port_where_nobody_listens_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
        async with BisonClient(
            BisonInstance("main", f"http://{host}:{port}", MASTER_KEY),
            pacing=RecordingPacing(),
            master_lock=LocalLock(),
        ) as client:
            await client.check_key(HARBOR, WORKSPACE_KEY)

    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable, match="ConnectError"):
        run(work())
    assert "Ww5" not in caplog.text
