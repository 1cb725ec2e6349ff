"""Events that were once dated or counted wrong, over HTTP to what is stored afterwards."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline_tests.cases import load_event
from kpi_pipeline_tests.cli.running import calm_zone, days_ago
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts
from kpi_pipeline_tests.gateway.support import Gateway, in_thread

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BOUNCE = "event_bounced_type_bounce"
MAIL = "event_sent_3h_ago_delivered_late"
LEAD = "events_feed_row"


@pytest.fixture(scope="module")
def served(postgres: URL) -> Iterator[Gateway]:
    """One gateway for all these tests."""
    with another_database(postgres) as url, in_thread(url) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("number", "name", "facts_age", "metric", "age", "raised"),
    [
        (1, BOUNCE, 2 * HOUR, "bounced", 30 * HOUR, {}),
        (2, BOUNCE, 48 * HOUR, "bounced", 30 * HOUR, {"bounced_mtd": 1}),
        (3, MAIL, 5 * MINUTE, "sent", 3 * HOUR, {}),
        (4, MAIL, 4 * HOUR, "sent", 3 * HOUR, {"emails_sent_mtd": 1, "emails_sent_today": 1}),
        (5, LEAD, 5 * MINUTE, "interested", HOUR, {}),
        (
            6,
            LEAD,
            2 * HOUR,
            "interested",
            HOUR,
            {"positive_replies_mtd": 1, "positive_replies_today": 1},
        ),
    ],
)
def test_an_event_is_stored_on_its_own_day_and_counts_what_the_facts_do_not_hold(
    served: Gateway,
    number: int,
    name: str,
    facts_age: timedelta,
    metric: str,
    age: timedelta,
    raised: dict[str, int],
) -> None:
    now, today = datetime.now(UTC), days_ago(0)
    workspace_id = 200 + number
    workspace = f"case-{number}"
    vault = Vault(SecretStr(new_secret_key()))
    imported(served.engine, vault, record(workspace_id, f"Case {number}"))
    # From the month before on: the windows of today's row are known.
    first = days_ago(32).replace(day=1)
    with served.engine.begin() as connection:
        stock_facts(connection, workspace, first, today, as_of=now - facts_age)
        update_rows(
            connection,
            [workspace],
            since=first,
            until=today,
            zone=calm_zone(),
            source="sync",
            dates=[today],
        )
    before = numbers(served, workspace)

    answer = served.post(load_event(name, workspace_id, now))

    assert (answer.status_code, answer.json()["status"]) == (200, "applied")
    after = numbers(served, workspace)
    assert {key: n - before[key] for key, n in after.items() if n != before[key]} == raised
    [event] = served.rows(
        "SELECT * FROM webhook_events WHERE workspace = :workspace", workspace=workspace
    )
    assert (event["status"], event["metric"]) == ("applied", metric)
    assert abs(now - event["happened_at"] - age) < MINUTE
    assert event["business_date"] == business_date(now - age, calm_zone())
    if name == LEAD:
        sent = load_event(name, workspace_id, now)
        assert event["feed_uuid"] == sent["uuid"]
        assert event["recorded_at"] == datetime.fromisoformat(sent["created_at"])


def numbers(gateway: Gateway, workspace: str) -> dict[str, int]:
    """The client's numbers of today."""
    [row] = gateway.rows(
        "SELECT * FROM client_metrics WHERE workspace = :workspace AND metric_date = :day",
        workspace=workspace,
        day=days_ago(0),
    )
    names = ("positive_replies_today", "positive_replies_mtd", "all_replies_mtd", "bounced_mtd")
    return {name: row[name] for name in (*names, "emails_sent_today", "emails_sent_mtd")}
