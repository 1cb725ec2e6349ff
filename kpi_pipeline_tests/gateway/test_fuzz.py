"""Any body is answered with 200 and stored, and none breaks the gateway."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.gateway.support import FIRST_ID, WORKSPACES, GatewayProcess

pytestmark = [pytest.mark.server, pytest.mark.long]

AT_ONCE = 50
BODIES = AT_ONCE * settings().max_examples // 4
_IN_FLIGHT = 20
_MOST_GROWTH = 40e6

# Control characters, NUL and lone surrogates among them.
texts = st.text(st.characters(exclude_categories=()), max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**63, 2**63 - 1, -(2**63), 10**400, 1e308, float("nan"), "7", "٣"]),
    st.sampled_from(
        ["LEAD_INTERESTED", "lead_replied", "x" * 70_000, "a\x00b", "\ud800", "\x1b[2J"]
    ),
    st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-02-30"]),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
places = st.sampled_from(
    [
        *("event", "event.type", "event.workspace_id", "event.instance_url", "data", "data.lead"),
        *("data.lead.id", "data.campaign", "data.campaign.id", "data.reply", "data.reply.id"),
        *("data.scheduled_email", "data.reply.date_received", "data.campaign_event"),
    ]
)
types = st.sampled_from(
    [
        *("LEAD_INTERESTED", "email_sent", "Lead_Replied", "EMAIL_BOUNCED", "lead_unsubscribed"),
        *("EMAIL_OPENED", "TAG_ATTACHED"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A whole body in which one to three members were replaced or removed."""
    number = draw(st.integers(1, 2**40))
    data = {name: {"id": number} for name in ("lead", "campaign", "reply", "scheduled_email")}
    event = content(draw(types), data, FIRST_ID + draw(st.integers(0, len(WORKSPACES))))
    for place in draw(st.lists(places, max_size=3)):
        *path, name = place.split(".")
        parent: Any = event
        for step in path:
            parent = parent.get(step) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            if draw(st.booleans()):
                parent[name] = draw(values)
            else:
                parent.pop(name, None)
    return as_sent(event, raw=draw(st.booleans()))


def as_sent(event: object, *, raw: bool) -> bytes:
    """JSON in ASCII, or with raw characters, even those that JSON forbids."""
    if not raw:
        return json.dumps(event).encode()
    text = json.dumps(event, ensure_ascii=False)
    return (
        text.replace("\\u0000", "\x00").replace("\\u001b", "\x1b").encode("utf-8", "surrogatepass")
    )


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A body that is cut off, or has a byte or two too many."""
    body = bytearray(draw(mutated()))
    for _ in range(draw(st.integers(1, 2))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))])


bodies = st.one_of(
    mutated(),
    mutated(),
    mutated(),
    broken(),
    st.binary(max_size=200),
    st.builds(as_sent, values, raw=st.booleans()),
    st.builds(lambda depth, part: part * depth, st.integers(1, 20_000), st.just(b"[")),
    st.builds(lambda depth: b'{"event":' * depth + b"1" + b"}" * depth, st.integers(1, 20_000)),
    st.builds(
        lambda digits: b'{"event": {"workspace_id": ' + b"9" * digits + b"}}", st.integers(1, 9_000)
    ),
)


def answers(url: str, sent: Sequence[bytes]) -> list[httpx.Response]:
    """Send them side by side."""

    async def all_of_them() -> list[httpx.Response]:
        places = asyncio.Semaphore(_IN_FLIGHT)
        async with httpx.AsyncClient(timeout=180, trust_env=False) as client:

            async def one(body: bytes) -> httpx.Response:
                async with places:
                    return await client.post(url, content=body)

            return list(await asyncio.gather(*map(one, sent)))

    return asyncio.run(all_of_them())


@pytest.mark.timeout(1_200)
def test_no_body_breaks_the_gateway_or_is_lost(process: GatewayProcess, engine: Engine) -> None:
    memory = psutil.Process(process.child.pid).memory_info
    statuses: Counter[tuple[int, str]] = Counter()
    sizes: list[int] = []

    @settings(
        max_examples=BODIES // AT_ONCE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(bodies, min_size=AT_ONCE, max_size=AT_ONCE))
    def send(sent: list[bytes]) -> None:
        taken = []
        for body, answer in zip(sent, answers(process.url, sent), strict=True):
            found = answer.json()
            assert answer.status_code == 200, body[:200]
            assert answer.text.isprintable(), answer.text
            statuses[answer.status_code, found["status"]] += 1
            taken.append((found, body))
        statement = text("SELECT id, body FROM webhook_events WHERE id = ANY(:ids)")
        with engine.connect() as connection:
            rows = connection.execute(statement, {"ids": [found["id"] for found, _ in taken]})
            kept = {row.id: bytes(row.body) for row in rows}
        for found, body in taken:
            # One that tells the same as another before is a delivery of that one.
            assert kept[found["id"]] == body or not found["new"]
        sizes.append(memory().rss)

    send()
    assert sum(statuses.values()) >= BODIES, statuses
    assert {status for _, status in statuses} >= {"applied", "ignored", "invalid", "unmatched"}
    half = len(sizes) // 2
    assert max(sizes[half:]) - max(sizes[:half]) < _MOST_GROWTH, sizes
    log = process.log()
    assert "Traceback" not in log
    assert process.secret not in log
