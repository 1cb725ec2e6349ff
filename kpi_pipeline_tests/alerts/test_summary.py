"""The text of the daily summary, from rows of `client_metrics` in a real database."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, delete

from kpi_pipeline.alerts.message import MessageType
from kpi_pipeline.alerts.summary import SummaryOfDay, read_summary, summary_text
from kpi_pipeline.db.metrics import MetricRow
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import raw_bison_stats
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.standing import standing
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts

CHICAGO = ZoneInfo("America/Chicago")
# The stored days hold a change of clocks, and ends and beginnings of months.
FIRST, LAST = date(2026, 1, 1), date(2026, 3, 18)
LEADS = {"ahead": 11, "on-track": 10, "behind": 8, "free": 2}


@pytest.fixture(autouse=True)
def _clients(engine: Engine, vault: Vault) -> None:
    """Clients with LEADS a day; the target is 28 days × 10 leads."""
    for number, name in enumerate(("Ahead", "On Track", "Behind", "Free", "Nothing")):
        target = None if name == "Free" else 280
        imported(
            engine,
            vault,
            record(
                101 + number,
                name,
                monthly_kpi_target=target,
                monthly_sending_target=5600 if name == "Ahead" else None,
            ),
            targets_from=date(2026, 1, 1),
        )
    publish(engine, datetime(2026, 3, 19, 6, 0, tzinfo=UTC))


def publish(engine: Engine, as_of: datetime, *workspaces: str) -> None:
    """Store facts as of `as_of`, and compute the rows."""
    with engine.begin() as connection:
        for workspace in workspaces or LEADS:
            leads = LEADS[workspace]
            # Older facts do not replace newer ones.
            connection.execute(
                delete(raw_bison_stats).where(raw_bison_stats.c.workspace == workspace)
            )
            stock_facts(connection, workspace, FIRST, LAST, as_of=as_of, interested=leads)
            dates = days_between(date(2026, 2, 26), LAST)
            write_rows(connection, {workspace: dates}, CHICAGO, "sync")


def summary_of(engine: Engine, day: date) -> tuple[str, list[str]]:
    with engine.connect() as connection:
        message = summary_text(read_summary(connection, day), CHICAGO, CHICAGO)
    assert message.type is MessageType.INFO
    return message.title, message.body.splitlines()


def test_at_a_months_end_the_month_is_compared_with_its_target(engine: Engine) -> None:
    assert summary_of(engine, date(2026, 2, 28)) == (
        "KPIs of Saturday, 28 February 2026",
        [
            "4 of 5 clients have numbers.",
            "All: 400 emails sent, 40 replies, 31 positive replies; "
            "868 positive replies this month.",
            "",
            "Above target (2)",
            "- Ahead: 100 emails sent, 10 replies, 11 positive replies; month 308 of 280, "
            "heading for 308 (110 %); 2,800 emails sent of 5,600 (heading for 50 %): "
            "10.0 % replied, 11.00 % positive, 5.0 % bounced",
            "- On Track: 100 emails sent, 10 replies, 10 positive replies; month 280 of 280, "
            "heading for 280 (100 %); 2,800 emails sent: 10.0 % replied, 10.00 % positive, "
            "5.0 % bounced",
            "",
            "Behind (1)",
            "- Behind: 100 emails sent, 10 replies, 8 positive replies; month 224 of 280, "
            "heading for 224 (80 %); 2,800 emails sent: 10.0 % replied, 8.00 % positive, "
            "5.0 % bounced",
            "",
            "No target (1)",
            "- Free: 100 emails sent, 10 replies, 2 positive replies; month 56, heading for 56; "
            "2,800 emails sent: 10.0 % replied, 2.00 % positive, 5.0 % bounced",
            "",
            "Stale (1): the day is not closed; see `kpi status`",
            "- Nothing: no numbers",
        ],
    )


def test_on_the_first_of_a_month_the_day_equals_the_month(engine: Engine) -> None:
    _, lines = summary_of(engine, date(2026, 3, 1))
    assert lines[1] == (
        "All: 400 emails sent, 40 replies, 31 positive replies; 31 positive replies this month."
    )


def test_replies_of_a_day_are_unknown_if_the_day_before_is(engine: Engine) -> None:
    _, lines = summary_of(engine, date(2026, 2, 26))
    assert lines[1] == (
        "All: 400 emails sent, – replies, 31 positive replies; 806 positive replies this month."
    )


@pytest.mark.parametrize(
    ("day", "end"),
    [
        # Clocks go forward on the 8th, so that it ends an hour sooner in UTC.
        (date(2026, 3, 7), datetime(2026, 3, 8, 6, 0, tzinfo=UTC)),
        (date(2026, 3, 8), datetime(2026, 3, 9, 5, 0, tzinfo=UTC)),
    ],
)
def test_a_day_is_closed_by_facts_requested_after_its_local_midnight(
    engine: Engine, day: date, end: datetime
) -> None:
    with engine.connect() as connection:
        summary = read_summary(connection, day)
    for as_of, stale in ((end, 1), (end - timedelta(minutes=1), 5)):
        rows = [
            row if row.as_of is None else type(row)(**{**vars(row), "as_of": as_of})
            for row in summary.rows
        ]
        text = summary_text(type(summary)(day, rows, summary.day_before), CHICAGO, CHICAGO).body
        assert f"Stale ({stale}): " in text
    assert f"- Ahead: as of {as_of.astimezone(CHICAGO):%a %d %b %Y, %H:%M %Z}" in text


def test_a_day_is_one_of_email_bison_and_times_are_those_of_the_people(engine: Engine) -> None:
    """Chicago's 17 March ends five hours later than that of UTC, by which Email Bison counts."""
    day, utc = date(2026, 3, 17), ZoneInfo("UTC")
    publish(engine, datetime(2026, 3, 18, 0, 30, tzinfo=UTC), "ahead")
    publish(engine, datetime(2026, 3, 17, 23, 30, tzinfo=UTC), "behind")
    with engine.connect() as connection:
        message = summary_text(read_summary(connection, day), CHICAGO, utc)
    assert message.title == "KPIs of Tuesday, 17 March 2026 (Email Bison's day, UTC)"
    assert "Stale (2): " in message.body
    assert "- Behind: as of Tue 17 Mar 2026, 18:30 CDT" in message.body


def test_a_day_without_any_row_says_so_of_every_client(engine: Engine) -> None:
    _, lines = summary_of(engine, date(2026, 5, 1))
    assert lines[:2] == [
        "0 of 5 clients have numbers.",
        "All: – emails sent, – replies, – positive replies; – positive replies this month.",
    ]
    assert "Stale (5): the day is not closed; see `kpi status`" in lines


def test_the_best_of_many_clients_are_named_and_the_others_counted(
    engine: Engine, vault: Vault
) -> None:
    with engine.connect() as connection:
        summary = read_summary(connection, date(2026, 2, 28))
    (row,) = [it for it in summary.rows if it.workspace == "ahead"]
    many = [type(row)(**{**vars(row), "display_name": f"Client {it:03}"}) for it in range(500)]
    lines = summary_text(type(summary)(summary.day, many, {}), CHICAGO, CHICAGO).body.splitlines()
    assert lines[0] == "500 of 500 clients have numbers."
    assert "Above target (500)" in lines
    assert "… and 460 more" in lines


@pytest.mark.parametrize(
    ("positive_replies", "projection", "target", "group"),
    [
        (95, 95, 100, "Behind"),
        (50, 99, 100, "Behind"),
        (50, 100, 100, "On track"),
        (100, 100, 100, "Above target"),
        (0, 0, 0, "Above target"),
        (5, 5, None, "No target"),
        (None, None, 100, "No data"),
    ],
)
def test_a_client_is_on_track_by_the_rule_of_the_dashboard(
    engine: Engine,
    positive_replies: int | None,
    projection: int | None,
    target: int | None,
    group: str,
) -> None:
    with engine.connect() as connection:
        summary = read_summary(connection, date(2026, 2, 28))
    row = replace(
        summary.rows[0],
        positive_replies_mtd=positive_replies,
        projection_positive_replies_eom=projection,
        monthly_kpi_target=target,
    )
    assert standing(positive_replies, projection, target) == group.lower()
    assert f"\n{group} (1)\n" in text_of(summary, row)


def test_one_client_one_email_and_one_reply_are_singular(engine: Engine) -> None:
    with engine.connect() as connection:
        summary = read_summary(connection, date(2026, 2, 1))
    row = replace(
        summary.rows[0],
        display_name="Acme\u202e @everyone",
        as_of=datetime(2026, 2, 2, 12, tzinfo=UTC),
        emails_sent_today=1,
        emails_sent_mtd=1,
        all_replies_mtd=1,
        positive_replies_today=1,
        positive_replies_mtd=1,
    )
    text = text_of(summary, row)
    assert text.startswith(
        "1 of 1 client has numbers.\nAll: 1 email sent, 1 reply, 1 positive reply;"
    )
    assert "- Acme[U+202E] @everyone: 1 email sent, 1 reply, 1 positive reply; month 1" in text


def text_of(summary: SummaryOfDay, *rows: MetricRow) -> str:
    return summary_text(replace(summary, rows=rows), CHICAGO, CHICAGO).body
