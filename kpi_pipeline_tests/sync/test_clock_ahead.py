"""A machine whose clock runs ahead stores nothing of the future, and stops nobody else."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Self

import pytest
from sqlalchemy import URL

from kpi_pipeline.app import open_app
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import Agency, agency_on
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import calm_zone

AHEAD = timedelta(hours=26)
_INSTANTS = """
    SELECT max(instant) - clock_timestamp() FROM (
        SELECT as_of AS instant FROM raw_bison_stats
        UNION ALL SELECT as_of FROM client_metrics
        UNION ALL SELECT updated_at FROM client_metrics
        UNION ALL SELECT finished_at FROM sync_log
        UNION ALL SELECT verified_at FROM client_api_keys
        UNION ALL SELECT as_of FROM sending_plans
    ) t
"""


class Ahead(datetime):
    """The clock of a machine that is 26 hours ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + AHEAD


@pytest.fixture
def running(stage: Stage) -> Iterator[Bison]:
    """A sandbox at the real time, as the database is."""
    with bison_on(stage, options(today=None, timezone=calm_zone().key)) as bison:
        bison.freeze(None)
        yield bison


@pytest.fixture
def now_agency(database: URL, running: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    with agency_on(database, running, monkeypatch) as agency:
        yield agency


def dates_of(agency: Agency) -> Sequence[date]:
    return days_between(*nightly_dates(agency.today))


def leads_today(agency: Agency, slug: str) -> int:
    leads: int = agency.rows()[slug, agency.today]["positive_replies_today"]
    return leads


def mark(agency: Agency, slug: str, leads: int) -> None:
    (client,) = [it for it in agency.bison.with_key() if it["api_key"] == agency.key(slug)]
    agency.bison.mark(client, leads)


def test_one_sync_on_a_machine_26_hours_ahead_stops_no_later_sync(
    now_agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = now_agency.keyed[0]
    with monkeypatch.context() as wrong:
        wrong.setattr("kpi_pipeline.domain.clock.datetime", Ahead)
        with open_app(load_settings()) as app:
            ahead = now_agency.with_app(now=app.now)
            assert abs(app.now() - datetime.now(UTC)) < timedelta(minutes=1)
            ahead.synced(dates_of(ahead), [slug])
    ((latest,),) = now_agency.sql(_INSTANTS)
    assert latest < timedelta(seconds=1)
    before = leads_today(now_agency, slug)
    mark(now_agency, slug, 3)
    now_agency.synced(dates_of(now_agency), [slug])
    assert leads_today(now_agency, slug) >= before + 3


def test_facts_of_the_future_are_replaced_by_the_next_sync(now_agency: Agency) -> None:
    """As an earlier version left them, which went by the clock of its machine."""
    slug = now_agency.keyed[0]
    now_agency.with_app(now=lambda: datetime.now(UTC) + AHEAD).synced(dates_of(now_agency), [slug])
    ((latest,),) = now_agency.sql(_INSTANTS)
    assert latest > timedelta(hours=25)
    before = leads_today(now_agency, slug)
    mark(now_agency, slug, 3)
    now_agency.synced(dates_of(now_agency), [slug])
    assert leads_today(now_agency, slug) >= before + 3
    assert now_agency.rows()[slug, now_agency.today]["as_of"] < datetime.now(UTC)
