"""The runs of one backfill share the facts that one of them fetched."""

import threading
from collections.abc import Sequence
from datetime import date, datetime, timedelta

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.sync.run import ClientOutcome, run_sync
from kpi_pipeline.sync.scope import BackfillScope, PartitionBlock
from kpi_pipeline_tests.agency import SERIES, Agency, differences, errors
from kpi_pipeline_tests.conftest import NOW

YESTERDAY = date(2026, 3, 17)
DATES = days_between(YESTERDAY - timedelta(days=2), YESTERDAY)


def part(
    agency: Agency, dates: Sequence[date], backfill: BackfillScope, run_id: str = "a run"
) -> dict[str, ClientOutcome]:
    """The run over some of the backfill's dates."""
    block = PartitionBlock(agency.some, dates, backfill)
    outcomes = run_sync(agency.app, block, run_id=run_id)
    return {outcome.workspace: outcome for outcome in outcomes}


def scope(requested_at: datetime = NOW, last: date = YESTERDAY) -> BackfillScope:
    return BackfillScope(requested_at, DATES[0], last)


def series_calls(agency: Agency) -> dict[str, int]:
    return {
        client: sum(call["path"] == SERIES for call in calls)
        for client, calls in agency.calls().items()
    }


def test_the_first_run_to_come_to_a_client_fetches_for_all_dates_of_the_backfill(
    agency: Agency,
) -> None:
    agency.forget_calls()

    for day in reversed(DATES):
        assert errors(part(agency, [day], scope(), f"run of {day}")) == {}

    assert series_calls(agency) == dict.fromkeys(agency.some, 1)
    assert differences(agency.rows(), agency.expected(DATES, agency.some)) == []


def test_runs_at_once_fetch_each_client_once(agency: Agency) -> None:
    agency.forget_calls()
    runs = [
        threading.Thread(target=part, args=(agency, [day], scope(), f"run of {day}"))
        for day in DATES
    ]

    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert series_calls(agency) == dict.fromkeys(agency.some, 1)
    assert differences(agency.rows(), agency.expected(DATES, agency.some)) == []


def test_facts_from_before_the_backfill_was_asked_for_are_fetched_again(agency: Agency) -> None:
    agency.synced(DATES, agency.some)
    agency.forget_calls()

    assert errors(part(agency, [YESTERDAY], scope(NOW + timedelta(seconds=1)))) == {}

    assert series_calls(agency) == dict.fromkeys(agency.some, 1)


@pytest.mark.parametrize("first_run", ["of another day", "of today"])
def test_today_is_fetched_with_its_sending_plan_whatever_another_run_has_fetched(
    agency: Agency, first_run: str
) -> None:
    today = YESTERDAY + timedelta(days=1)
    days = [YESTERDAY, today] if first_run == "of another day" else [today, YESTERDAY]

    for day in days:
        assert errors(part(agency, [day], scope(last=today), f"run of {day}")) == {}

    rows = agency.rows()
    assert differences(rows, agency.expected([YESTERDAY, today], agency.some)) == []
    assert all(rows[client, today]["emails_scheduled_today"] is not None for client in agency.some)


def test_a_client_whose_facts_could_not_be_fetched_is_asked_for_by_the_next_run(
    agency: Agency,
) -> None:
    rejected = agency.keyed[0]
    agency.revoke(rejected)
    assert errors(part(agency, DATES[:1], scope())).keys() == {rejected}
    body = {"workspace_id": agency.ids[rejected]}
    agency.bison.http.post("/sandbox/keys/restore", json=body).raise_for_status()

    assert errors(part(agency, DATES[1:], scope())) == {}

    rows = agency.rows()
    assert {day for client, day in rows if client == rejected} == set(DATES[1:])
