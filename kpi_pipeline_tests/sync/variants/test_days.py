"""Days without a sending plan, and evenings that may be tomorrow already in Email Bison."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.db.tables import client_metrics, sending_plans
from kpi_pipeline_tests.agency import Agency
from kpi_pipeline_tests.sync.variants.cases import (
    DATES,
    assert_right,
    right_rows,
    three_clients,
)

_CHICAGO = ZoneInfo("America/Chicago")
_TODAY, _TOMORROW = "emails_scheduled_today", "emails_scheduled_tomorrow"


@pytest.mark.parametrize("empty_plan", ["400", "list", "404", "422", "success_false"])
@pytest.mark.parametrize(
    ("day", "without_plan"),
    [
        pytest.param(20, [_TOMORROW], id="a Friday"),
        pytest.param(21, [_TODAY, _TOMORROW], id="a Saturday"),
    ],
)
def test_a_day_without_a_plan_is_a_zero_in_each_form_of_the_answer(
    before_any_sync: Agency, empty_plan: str, day: int, without_plan: list[str]
) -> None:
    now = datetime(2026, 3, day, 15, tzinfo=_CHICAGO)
    agency = before_any_sync.moved_to(now.astimezone(UTC))
    clients, dates = three_clients(agency), [now.date()]
    right = right_rows(agency, clients, dates)
    agency.bison.variants(empty_plan=empty_plan)

    agency.synced(dates, clients)

    assert_right(agency, right, clients)
    for row in agency.rows().values():
        plans = {name: row[name] for name in (_TODAY, _TOMORROW)}
        assert {name for name, emails in plans.items() if emails == 0} == set(without_plan)


@pytest.mark.parametrize("day_zone", ["UTC", "America/New_York", "workspace"])
def test_a_plan_of_an_evening_that_may_be_tomorrows_is_not_taken_for_todays(
    before_any_sync: Agency, day_zone: str
) -> None:
    evening = datetime(2026, 3, 18, 19, 30, tzinfo=_CHICAGO)
    agency = before_any_sync.moved_to(evening.astimezone(UTC)).with_settings(bison_timezone=None)
    agency.bison.variants(day_zone=day_zone)
    clients = three_clients(agency)

    agency.synced(DATES, clients)

    right = right_rows(agency, clients)
    for row in right[client_metrics.name].values():
        row[_TODAY] = row[_TOMORROW] = None
    assert_right(agency, right, clients)
    assert agency.table(sending_plans) == []
