"""Variants of the sandbox, and answers that were once read wrong, over HTTP to the stored rows."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.bison import BisonClient
from kpi_pipeline.db.tables import client_api_keys, raw_bison_stats
from kpi_pipeline.domain.events.kinds import COUNTED
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.sync.feed import poll_feed
from kpi_pipeline_tests.agency import PLANS, SERIES, WHO_AM_I, Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Stage
from kpi_pipeline_tests.cases import load_case, load_event
from kpi_pipeline_tests.gateway.support import serving
from kpi_pipeline_tests.sync.variants.cases import (
    DATES,
    LATER,
    assert_right,
    right_rows,
    right_rows_later,
    three_clients,
)

FEED = "/api/events"
SECRET = "a" * 32
MINUTE = timedelta(minutes=1)
LONG = pytest.mark.long


def each_of(
    usual: Sequence[Mapping[str, object]], long: Sequence[Mapping[str, object]]
) -> pytest.MarkDecorator:
    """Runs a test under each of these variants; the second ones in `make test-long` alone."""
    return pytest.mark.parametrize(
        "variants",
        [*usual, *(pytest.param(it, marks=LONG) for it in long)],
        ids=lambda it: ", ".join(f"{name} {value}" for name, value in it.items()),
    )


@pytest.fixture
def agency(before_any_sync: Agency, monkeypatch: pytest.MonkeyPatch) -> Agency:
    """Three clients, of which one has no key; every call goes over the network."""
    monkeypatch.setattr("kpi_pipeline.app.BisonClient", BisonClient)
    few = three_clients(before_any_sync)
    before_any_sync.sql("UPDATE clients SET active = workspace = ANY(:few)", few=few)
    before_any_sync.workspaces = few
    return before_any_sync


@each_of(
    [
        *({"user_member": it} for it in ("workspace", "team", "both")),
        {"labels": "no_opens"},
        {"campaigns": "many", "paging": "page"},
    ],
    [
        *({"labels": it} for it in ("shuffled", "one_unknown")),
        *({"empty_plan": it} for it in ("list", "404", "422", "success_false")),
        *({"campaigns": "many", "paging": it} for it in ("cursor", "whole", "changing")),
        *({"counts": it} for it in ("text", "integers")),
        {"empty_days": "omitted"},
        {"extra_fields": True, "control_characters": True},
    ],
)
def test_a_sync_stores_the_right_rows_in_each_variant_of_the_answers(
    agency: Agency, variants: Mapping[str, object]
) -> None:
    right = right_rows_later(agency, agency.workspaces)
    if variants.get("labels") == "no_opens":
        unknown = dict.fromkeys(("total_opens", "unique_opens"))
        facts = {key: {**row, **unknown} for key, row in right[raw_bison_stats.name].items()}
        right = {**right, raw_bison_stats.name: facts}
    agency.bison.variants(**variants)

    agency.synced(DATES)

    assert_right(agency, right, agency.workspaces)


@each_of(
    [{"day_zone": "UTC"}, *({"leads_count_by": it} for it in ("reply", "mail"))],
    [*({"day_zone": it} for it in ("America/New_York", "workspace")), {"revised_days": 0}],
)
def test_a_sync_stores_the_days_as_each_variant_counts_them(
    agency: Agency, variants: Mapping[str, object]
) -> None:
    agency.bison.variants(**variants)
    agency = agency.with_settings(bison_timezone=None)

    agency.synced(DATES)

    assert_right(agency, right_rows(agency, agency.workspaces), agency.workspaces)


@each_of(
    [{"webhook_body": "row", "event_casing": "mixed"}, {"delivery_losses": 1.0}],
    [
        *({"event_feed": it} for it in ("filtered", "unfiltered", "missing")),
        {"event_casing": "lower"},
        {"lead_campaign_event": "replied"},
        {"event_instance_url": False},
        {"delivery_repeats": 1.0},
    ],
)
def test_webhooks_and_the_feed_store_each_lead_once_in_each_variant_of_events(
    agency: Agency, variants: Mapping[str, object]
) -> None:
    agency.synced(DATES)
    agency = agency.moved_to(LATER + 2 * MINUTE)
    agency.bison.variants(**variants)
    (client,) = [
        row for row in agency.bison.with_key() if row["api_key"] == agency.key(agency.workspaces[0])
    ]
    inbox = inbox_of(agency.app, realtime=True)
    with serving(create_app(inbox, {"main": SecretStr(SECRET)})) as gateway:
        agency.bison.hook(client, f"{gateway.base_url}/webhooks/bison/{SECRET}", *COUNTED)
        agency.bison.mark(client, 2)
        agency.bison.delivered()
    report = poll_feed(agency.moved_to(LATER + 3 * MINUTE).app)

    # Where the filters are ignored, the first reading of ten days is longer than one may be.
    long = variants.get("event_feed") == "unfiltered"
    assert all(long and "has more than 600 rows" in it for it in report.problems)
    has_feed = variants.get("event_feed") != "missing"
    assert report.without == ([] if has_feed else ["main"])
    leads = agency.sql(
        "SELECT feed_uuid, status FROM webhook_events "
        "WHERE workspace = :workspace AND metric = 'interested' AND arrived_at >= :since",
        workspace=agency.workspaces[0],
        since=LATER,
    )
    counted = [it for it in leads if it.status == "applied"]
    assert len([it for it in counted if it.feed_uuid or not has_feed]) >= 2
    for slug in agency.workspaces[:2]:
        counts = agency.bison.series(TODAY, TODAY, key=agency.key(slug))
        row = agency.rows()[slug, TODAY]
        assert [row["positive_replies_today"]] == counts["Interested"], slug


class Answers:
    """Answers one key's calls of some paths with JSON, in place of the sandbox."""

    def __init__(self, app: ASGIApp, key: str, answers: Mapping[str, Callable[..., Any]]) -> None:
        self._app = app
        self._key = f"Bearer {key}".encode()
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = dict(scope.get("headers", ())).get(b"authorization") == self._key
        make = self._answers.get(scope.get("path", "")) if own else None
        if make is None:
            await self._app(scope, receive, send)
            return
        query = {name: it[0] for name, it in parse_qs(scope["query_string"].decode()).items()}
        await JSONResponse(make(**query))(scope, receive, send)


@pytest.fixture
def answered(agency: Agency, stage: Stage) -> Iterator[Callable[..., None]]:
    """Has the first client's calls answered with JSON."""
    sandbox = stage.app

    def put(**answers: Callable[..., Any]) -> None:
        key = str(agency.key(agency.workspaces[0]))
        paths = {"users": WHO_AM_I, "series": SERIES, "plans": PLANS, "feed": FEED}
        stage.app = Answers(sandbox, key, {paths[name]: it for name, it in answers.items()})

    yield put
    stage.app = sandbox


def test_the_answers_that_were_once_read_wrong_are_stored_right(
    agency: Agency, answered: Callable[..., None]
) -> None:
    slug = agency.workspaces[0]
    user = load_case("users_workspace_not_team")
    user["data"]["workspace"]["id"] = agency.ids[slug]
    series = load_case("series_without_open_labels")
    for number, line in enumerate(series["data"], start=11):
        line["dates"] = [[str(TODAY), number]]
    first_page = load_case("sending_schedules_paged")

    def plan(day: str, page: str = "1", **_: str) -> Any:
        if page == "1":
            return first_page
        last = json.loads(json.dumps(first_page))
        last["data"] = [{**it, "campaign_id": it["campaign_id"] + 15} for it in last["data"][:5]]
        last["links"] |= {"prev": "http://x/?page=1", "next": None}
        last["meta"] |= {"current_page": 2, "from": 16, "to": 20}
        return last

    answered(users=lambda **_: user, series=lambda **_: series, plans=plan)

    agency.synced([TODAY], [slug])

    row = agency.rows()[slug, TODAY]
    assert [row["emails_scheduled_today"], row["emails_scheduled_tomorrow"]] == [2_000, 2_000]
    assert (row["all_replies_mtd"], row["emails_sent_today"], row["unsubscribed_mtd"]) == (
        11,
        12,
        13,
    )
    assert (row["unsubscribed_mtd"], row["bounced_mtd"]) == (13, 14)
    assert row["positive_replies_today"] == 15
    facts = {day: it for (_, day), it in agency.rows(raw_bison_stats).items()}
    assert (facts[TODAY]["total_opens"], facts[TODAY]["unique_opens"]) == (None, None)
    assert {it["sent"] for day, it in facts.items() if day != TODAY} == {0}
    [key] = [it for it in agency.table(client_api_keys) if it["workspace"] == slug]
    assert key["verified_at"] == LATER


def test_a_row_of_the_feed_that_was_once_read_wrong_is_stored_with_its_identity(
    agency: Agency, answered: Callable[..., None]
) -> None:
    slug = agency.workspaces[0]
    agency.synced([TODAY])
    before = agency.rows()[slug, TODAY]["positive_replies_today"]
    # The event is of the hour before.
    agency = agency.moved_to(LATER + timedelta(minutes=61))
    row = load_event("events_feed_row", agency.ids[slug], agency.app.now())
    empty = {"next_cursor": None, "prev_cursor": None, "per_page": 15}
    answered(
        feed=lambda type, **_: {
            "data": [row] if type == "lead_interested" else [],
            "links": {"next": None},
            "meta": empty,
        }
    )

    report = poll_feed(agency.app)

    assert report.problems == []
    [event] = agency.sql("SELECT * FROM webhook_events WHERE feed_uuid = :uuid", uuid=row["uuid"])
    assert (event.workspace, event.metric, event.status) == (slug, "interested", "applied")
    assert event.recorded_at == LATER + MINUTE
    assert event.business_date == TODAY
    assert agency.rows()[slug, TODAY]["positive_replies_today"] == before + 1
