"""Bodies as Email Bison and what stands between send them: stored, counted and dated over HTTP.

Each row of the tables says what becomes of one body. Facts are of yesterday and before, an hour
old: an event of today counts on top of them, and they hold one of the day before yesterday.
"""

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.kinds import COUNTED, TEST_MARKER, key_of_test
from kpi_pipeline.gateway.webhooks import MAX_BODY_BYTES
from kpi_pipeline_tests.cli.running import calm_zone, days_ago
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.gateway.support import FIRST_ID, Gateway, encoded, in_thread

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
# When an event happened, before its arrival: today, or on a day that its facts hold.
JUST_NOW, LATE, YEARS = 5 * MINUTE, 2 * DAY, 700 * DAY
COLUMN = {
    "sent": "emails_sent_today",
    "interested": "positive_replies_today",
    "replied": "all_replies_mtd",
    "bounced": "bounced_mtd",
    "unsubscribed": "unsubscribed_mtd",
}
# No two events are about the same things.
_ids = itertools.count(1_000)


def members(
    recorded_as: str, ago: timedelta | None, *, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The members of an event that was recorded so long ago, or at a time that no member tells."""
    at = None if ago is None else (datetime.now(UTC) - ago).isoformat()
    names = ["lead", "campaign", "reply", "scheduled_email", "sender_email", "campaign_event"]
    data: dict[str, Any] = {name: {"id": next(_ids)} for name in names}
    data["campaign_event"] |= {"type": recorded_as, "created_at": at}
    data["reply"]["text_body"] = "I\u2019d say \u201cyes\u201d"
    return {name: value for name, value in data.items() if name not in without}


def body(event_type: str, data: object, workspace_id: int = FIRST_ID) -> dict[str, Any]:
    return content(event_type, data, workspace_id, name="A name that nothing depends on")


def feed_row(payload: Mapping[str, Any], ago: timedelta) -> dict[str, Any]:
    """The event as `GET /api/events` lists it."""
    recorded_at = (datetime.now(UTC) - ago).isoformat()
    return {"id": 7, "uuid": f"u-{next(_ids)}", "payload": payload, "created_at": recorded_at}


@dataclass
class Case:
    """A body, and what becomes of it.

    `status` is that of its row, `metric` the count that it raises, and `ago` how long before its
    arrival it happened, if the body says so. `counts` is whether today's row includes it.
    """

    sent: bytes
    status: str
    metric: str | None = None
    ago: timedelta | None = None
    counts: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    stored: bytes | None = None


def counted(event_type: str, recorded_as: str, ago: timedelta | None) -> Case:
    metric = COUNTED[event_type.lower()].metric
    sent = encoded(body(event_type, members(recorded_as, ago)))
    return Case(sent, "applied", metric, ago, counts=ago != LATE)


def ignored(event_type: str) -> Case:
    return Case(encoded(body(event_type, members("opened", JUST_NOW))), "ignored")


# The event, the type of its record, as in live bodies or as others, and when it happened.
_COUNTED = [
    ("EMAIL_SENT", "sent", JUST_NOW),
    ("email_sent", "sent", LATE),
    ("Email_Sent", "queued", None),
    ("LEAD_REPLIED", "replied", JUST_NOW),
    ("lead_replied", "replied", LATE),
    ("Lead_Replied", "sent", None),
    ("LEAD_INTERESTED", "interested", JUST_NOW),
    ("lead_interested", "interested", LATE),
    ("Lead_Interested", "replied", None),
    ("EMAIL_BOUNCED", "bounce", JUST_NOW),
    ("email_bounced", "bounce", LATE),
    ("Email_Bounced", "sent", None),
    ("LEAD_UNSUBSCRIBED", "unsubscribed", JUST_NOW),
    ("lead_unsubscribed", "unsubscribed", LATE),
    ("Lead_Unsubscribed", "sent", None),
]
_NOT_COUNTED = [
    "MANUAL_EMAIL_SENT",
    "manual_email_sent",
    "LEAD_FIRST_CONTACTED",
    "EMAIL_OPENED",
    "untracked_reply_received",
    "Email_Account_Added",
    "EMAIL_ACCOUNT_REMOVED",
    "email_account_disconnected",
    "EMAIL_ACCOUNT_RECONNECTED",
    "TAG_ATTACHED",
    "tag_removed",
    "WARMUP_DISABLED_RECEIVING_BOUNCES",
]


def well_formed() -> dict[str, Case]:
    """Each counted type in three casings, and twelve types that are not counted."""
    cases = {it[0]: counted(*it) for it in _COUNTED}
    return cases | {event_type: ignored(event_type) for event_type in _NOT_COUNTED}


def lead(ago: timedelta | None = JUST_NOW, workspace_id: int = FIRST_ID) -> dict[str, Any]:
    return body("LEAD_INTERESTED", members("interested", ago), workspace_id)


def interested(sent: bytes, ago: timedelta | None = JUST_NOW, **more: Any) -> Case:
    return Case(sent, "applied", "interested", ago, counts=True, **more)


def packed(pack: Callable[[bytes], bytes], encoding: str) -> Case:
    """A lead whose body is compressed; what is stored is the body itself."""
    plain = encoded(lead())
    return interested(pack(plain), headers={"Content-Encoding": encoding}, stored=plain)


def _deflated(plain: bytes) -> bytes:
    """What some senders understand "deflate" as: without zlib's header."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def unsubscribed(*without: str) -> Case:
    data = members("sent", None, without=without)
    return Case(
        encoded(body("LEAD_UNSUBSCRIBED", data)), "applied", "unsubscribed", None, counts=True
    )


def odd() -> dict[str, Case]:
    """Bodies that differ from the usual ones, and some that are no events."""
    return {
        "a row of the feed": interested(encoded(feed_row(lead(None), 20 * MINUTE)), 20 * MINUTE),
        "a lead alone that unsubscribed": unsubscribed(
            "campaign", "reply", "scheduled_email", "sender_email", "campaign_event"
        ),
        "a bounce without its mail": Case(
            encoded(
                body("EMAIL_BOUNCED", members("bounce", JUST_NOW, without=("scheduled_email",)))
            ),
            "applied",
            "bounced",
            JUST_NOW,
            counts=True,
        ),
        "a byte order mark": interested(b"\xef\xbb\xbf" + encoded(lead())),
        "UTF-16": interested(json.dumps(lead(), ensure_ascii=False).encode("utf-16")),
        "gzip": packed(gzip.compress, "gzip"),
        "deflate": packed(zlib.compress, "Deflate"),
        "deflate without a header": packed(_deflated, "deflate"),
        "gzip that a proxy unpacked": interested(
            encoded(lead()), headers={"Content-Encoding": "gzip"}
        ),
        "gzip that is cut off": Case(
            gzip.compress(encoded(lead()))[:-9], "invalid", headers={"Content-Encoding": "gzip"}
        ),
        "an encoding that is not known": Case(
            b"\x0b\x02\x80{}\x03", "invalid", headers={"Content-Encoding": "br"}
        ),
        "a newer type": ignored("BLACKLISTED_EMAIL_ADDED"),
        "a type of tomorrow": ignored("LEAD_TELEPORTED"),
        "a sample": Case(encoded(lead(YEARS, 1)), "test"),
        "a lead of a real workspace 1": interested(encoded(lead(JUST_NOW, 1))),
        "a test of the webhook": Case(encoded(lead()), "test", query=f"?{TEST_MARKER}=try-7"),
        "what is no JSON": Case(b"lead=7", "invalid"),
        "an event without an id": Case(encoded(body("EMAIL_SENT", {})), "invalid"),
        "a time of tomorrow": interested(encoded(lead(-DAY)), None),
    }


@pytest.fixture(scope="module")
def served(postgres: URL) -> Iterator[Gateway]:
    """One gateway for all these tests; a client has the workspace 1."""
    with another_database(postgres) as url, in_thread(url) as gateway:
        imported(gateway.engine, Vault(SecretStr(new_secret_key())), record(1, "First"))
        for workspace_id in (FIRST_ID, 1):
            # Both clients have a row of today.
            gateway.post(lead(JUST_NOW, workspace_id))
        yield gateway


def numbers(gateway: Gateway) -> dict[tuple[str, str], int]:
    """Today's numbers of all clients; those that are not known are 0."""
    rows = gateway.rows("SELECT * FROM client_metrics WHERE metric_date = :day", day=days_ago(0))
    return {(row["workspace"], name): row[name] or 0 for row in rows for name in COLUMN.values()}


@pytest.mark.parametrize("name", [*well_formed(), *odd()])
def test_a_body_is_stored_counted_and_dated_as_the_table_says(served: Gateway, name: str) -> None:
    case = (well_formed() | odd())[name]
    before = numbers(served)

    answer = served.http.post(f"{served.path}{case.query}", content=case.sent, headers=case.headers)

    assert (answer.status_code, answer.json()["status"]) == (200, case.status)
    assert answer.json()["new"] is True
    [row] = served.rows("SELECT * FROM webhook_events WHERE id = :id", id=answer.json()["id"])
    assert bytes(row["body"]) == (case.stored or case.sent)
    assert (row["status"], row["metric"]) == (case.status, case.metric)
    assert (row["reason"] is None) == (case.status == "applied")
    happened_at = row["happened_at"]
    if case.ago is None:
        assert happened_at is None
    else:
        assert timedelta(0) <= row["arrived_at"] - happened_at - case.ago < MINUTE
    day = business_date(happened_at or row["arrived_at"], calm_zone())
    assert row["business_date"] == day
    assert (day == days_ago(0)) == (case.ago != LATE)
    raised = {key: n - before[key] for key, n in numbers(served).items() if n != before[key]}
    expected = {(row["workspace"], COLUMN[case.metric or "sent"]): 1} if case.counts else {}
    assert raised == expected


def test_the_table_has_each_counted_type_in_three_casings_and_twelve_that_are_not() -> None:
    metrics = [case.metric for case in well_formed().values()]
    assert len(metrics) == 27
    assert metrics.count(None) == 12
    assert all(metrics.count(kind.metric) == 3 for kind in COUNTED.values())


def test_a_row_of_the_feed_and_its_webhook_are_one_event(served: Gateway) -> None:
    payload = lead(None)
    before = numbers(served)
    first, second = served.post(payload), served.post(feed_row(payload, JUST_NOW))
    assert first.json()["id"] == second.json()["id"]
    assert [it.json()["new"] for it in (first, second)] == [True, False]
    key = "client-0", "positive_replies_today"
    assert numbers(served)[key] == before[key] + 1


def test_a_test_of_the_webhook_is_found_by_the_name_in_its_url(served: Gateway) -> None:
    for name in ("first", "second", "second"):
        answer = served.http.post(f"{served.path}?{TEST_MARKER}={name}", content=encoded(lead()))
        assert answer.json()["status"] == "test"
    for name, deliveries in (("first", 1), ("second", 2)):
        statement = "SELECT deliveries FROM webhook_events WHERE idempotency_key = :key"
        [row] = served.rows(statement, key=key_of_test("main", name))
        assert row["deliveries"] == deliveries


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_a_body_that_is_too_large_unpacked_is_rejected_and_nothing_of_it_stored(
    served: Gateway, encoding: str
) -> None:
    plain = b" " * (20 * MAX_BODY_BYTES) + encoded(lead())
    sent = zlib.compress(plain) if encoding == "deflate" else gzip.compress(plain)
    if encoding == "gzip, gzip":
        sent = gzip.compress(sent)
    assert len(sent) < MAX_BODY_BYTES
    before = served.count()
    answer = served.http.post(served.path, content=sent, headers={"Content-Encoding": encoding})
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["error"]
    assert served.count() == before


def test_a_packed_body_may_have_a_mebibyte_unpacked(served: Gateway) -> None:
    event = lead()
    largest = encoded(
        {**event, "text": "x" * (MAX_BODY_BYTES - len(encoded({**event, "text": ""})))}
    )
    assert len(largest) == MAX_BODY_BYTES
    answer = served.http.post(
        served.path, content=gzip.compress(largest), headers={"Content-Encoding": "gzip"}
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "applied")
