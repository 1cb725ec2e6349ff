"""What once left stored rows behind their inputs; each was seen with a stock installation."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db import recompute
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.equality.installation import Installation

CHICAGO = ZoneInfo("America/Chicago")
# The nightly sync of 24 March, a minute after midnight in Chicago.
NIGHT = datetime(2026, 3, 24, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TODAY = date(2026, 3, 24)


@pytest.fixture
def at(engine: Engine, vault: Vault) -> Installation:
    """Rows of the last 30 days."""
    return Installation(engine, vault, NIGHT, CHICAGO, rows=30)


def test_a_revision_of_three_weeks_ago_shows_in_every_row_since(at: Installation) -> None:
    before = at.numbers("emails_sent_mtd")
    revised = TODAY - 21 * DAY
    at.truth.revised["harbor", revised, "sent"] += 100
    at.truth.now += DAY

    at.night()

    after = at.numbers("emails_sent_mtd")
    changed = {day: after[day] - number for day, number in before.items() if day != TODAY}
    assert changed == {day: 100 * (day >= revised) for day in changed}
    assert at.differences() == []


def test_an_event_of_three_weeks_ago_shows_in_every_row_since(at: Installation) -> None:
    """Its day was fetched before it happened, and not again."""
    day = TODAY - 21 * DAY
    at.sql(
        "UPDATE raw_bison_stats SET as_of = as_of - interval '30 days' "
        "WHERE date = :day AND workspace = 'harbor'",
        day=day,
    )
    before = at.numbers("emails_sent_mtd")

    at.deliver(at.bodies("harbor", "sent", late=21 * DAY - timedelta(hours=2)))

    after = at.numbers("emails_sent_mtd")
    assert {it: after[it] - before[it] for it in after} == {it: int(it >= day) for it in after}
    assert at.differences() == []


def test_after_twelve_days_away_one_night_puts_every_row_right(at: Installation) -> None:
    """The last month's end among them, which the days of the outage are no part of."""
    at.truth.now += timedelta(hours=10)
    at.sync([TODAY - DAY, TODAY])
    at.truth.now += 12 * DAY
    at.truth.series.clear()

    outcomes = at.night()

    assert {it.error for it in outcomes.values()} == {None}
    assert at.truth.series == {"harbor": 1, "quay": 1}, "no call more than in any night"
    dates = list(at.numbers("source"))
    assert dates == days_between(dates[0], TODAY + 12 * DAY)
    assert at.untrue_facts("harbor", TODAY - 30 * DAY, TODAY + 12 * DAY) == []
    assert at.differences() == []
    assert min(outcomes["harbor"].numbers) == TODAY, "Dagster hears of each day"


def test_a_day_that_was_fetched_while_it_was_open_is_fetched_again_however_old(
    at: Installation,
) -> None:
    day = TODAY - 20 * DAY
    at.sql(
        "UPDATE raw_bison_stats SET sent = 7, as_of = date + time '16:00' "
        "WHERE date = :day AND workspace = 'harbor'",
        day=day,
    )

    outcomes = at.sync([TODAY - DAY, TODAY])

    assert min(outcomes["harbor"].numbers) == day
    assert list(outcomes["quay"].numbers) == [TODAY - DAY, TODAY]
    assert at.untrue_facts("harbor", day, TODAY) == []
    assert at.differences() == []


def test_an_event_that_is_stored_while_rows_are_computed_is_applied_later_and_not_lost(
    at: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = at.numbers("positive_replies_today")[TODAY]
    at.truth.now += timedelta(minutes=5)
    later = at.bodies("harbor", "interested")

    def meanwhile(*args: Any, **kwargs: Any) -> None:
        write_rows(*args, **kwargs)
        monkeypatch.undo()
        at.deliver(later, realtime=False)

    monkeypatch.setattr(recompute, "write_rows", meanwhile)
    at.deliver(at.bodies("harbor", "interested"))

    assert at.numbers("positive_replies_today")[TODAY] == before + 1
    statuses = at.sql("SELECT status FROM webhook_events ORDER BY id")
    assert [status for (status,) in statuses] == ["applied", "received"]
    at.apply_waiting()
    assert at.numbers("positive_replies_today")[TODAY] == before + 2
    assert at.differences() == []


def test_an_answer_without_any_day_wipes_no_facts(at: Installation) -> None:
    before = at.numbers("emails_sent_mtd")
    at.truth.empty = {"harbor"}

    outcomes = at.night()

    assert outcomes["quay"].error is None
    assert "without any day, and counts are stored" in (outcomes["harbor"].error or "")
    assert at.numbers("emails_sent_mtd") == before
    assert at.untrue_facts("harbor", TODAY - 30 * DAY, TODAY) == []


def test_an_answer_without_any_day_is_right_for_a_client_that_never_sent(
    engine: Engine, vault: Vault
) -> None:
    at = Installation(engine, vault, NIGHT, CHICAGO, rows=0)
    at.sql("UPDATE raw_bison_stats SET sent = 0, replied = 0, interested = 0, bounced = 0")
    at.truth.empty = {"harbor"}
    assert at.night()["harbor"].error is None
