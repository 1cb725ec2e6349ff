"""The rows of a sync against what Email Bison itself adds up for each window."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.db.tables import sending_plans
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.agency import Agency, differences, without
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.conftest import NOW

CHICAGO = ZoneInfo("America/Chicago")
WEEK_AND_TODAY = days_between(TODAY - timedelta(days=7), TODAY)


def at(*when: int) -> datetime:
    return datetime(*when, tzinfo=CHICAGO).astimezone(UTC)  # type: ignore[misc, arg-type]


def test_every_number_of_all_26_clients_is_what_bisons_own_window_totals_say(
    agency: Agency,
) -> None:
    agency.synced(WEEK_AND_TODAY)

    rows = agency.rows()
    assert len(rows) == 26 * 8
    asked = [WEEK_AND_TODAY[0], WEEK_AND_TODAY[4], TODAY]
    of_these = {key: row for key, row in rows.items() if key[1] in asked}
    assert differences(of_these, agency.expected(asked)) == []


@pytest.mark.parametrize(
    ("now", "first", "last"),
    [
        pytest.param(at(2026, 3, 8, 12), date(2026, 3, 6), date(2026, 3, 8), id="a day of 23 h"),
        pytest.param(at(2025, 11, 2, 12), date(2025, 11, 1), date(2025, 11, 2), id="25 h"),
        pytest.param(
            at(2026, 1, 1, 0, 1), date(2025, 12, 30), date(2026, 1, 1), id="the year's first minute"
        ),
        pytest.param(
            at(2026, 2, 28, 23, 59), date(2026, 2, 27), date(2026, 2, 28), id="a month's last one"
        ),
        pytest.param(
            at(2026, 3, 1, 0, 1), date(2026, 2, 27), date(2026, 3, 1), id="the minute after it"
        ),
    ],
)
def test_rows_hold_where_months_years_and_clocks_change(
    agency: Agency, now: datetime, first: date, last: date
) -> None:
    agency = agency.moved_to(now)
    dates, clients = days_between(first, last), agency.workspaces[::9] + agency.keyless[:1]
    assert now.astimezone(CHICAGO).date() == last

    agency.synced(dates, clients)

    assert differences(agency.rows(), agency.expected(dates, clients)) == []


def test_a_quiet_evening_in_chicago_is_still_today_though_it_is_tomorrow_in_utc(
    agency: Agency,
) -> None:
    agency = agency.moved_to(at(2026, 3, 18, 19, 30))
    assert agency.app.now().date() == TODAY + timedelta(days=1)
    clients = agency.workspaces[:3]

    agency.synced([TODAY], clients)

    assert differences(agency.rows(), agency.expected([TODAY], clients)) == []
    assert {row["date"] for row in agency.table(sending_plans)} == {TODAY}


def test_a_sync_that_runs_twice_leaves_identical_rows(agency: Agency) -> None:
    agency.synced(WEEK_AND_TODAY, agency.some)
    before = agency.all_rows()

    agency.synced(WEEK_AND_TODAY, agency.some)

    after = agency.all_rows()
    assert without(after, "updated_at") == without(before, "updated_at")
    assert {row["as_of"] for row in after["client_metrics"].values()} == {NOW}
    written = {key: row["updated_at"] for key, row in after["client_metrics"].items()}
    assert all(at > before["client_metrics"][key]["updated_at"] for key, at in written.items())


def test_days_that_bison_revised_are_fetched_and_worked_out_again(agency: Agency) -> None:
    clients = agency.workspaces[:5]
    agency.synced(WEEK_AND_TODAY, clients)
    before = agency.rows()
    later = agency.moved_to(NOW + timedelta(days=2))

    later.synced(WEEK_AND_TODAY, clients)

    expected = later.expected(WEEK_AND_TODAY, clients)
    for (_, day), row in expected.items():
        if day == TODAY:
            # The plan of the 18th was fetched on the 18th, and Bison can't be asked for it again.
            del row["emails_scheduled_today"], row["emails_scheduled_tomorrow"]
    after = later.rows()
    assert differences(after, expected) == []
    closed = TODAY - timedelta(days=1)
    assert any(
        after[slug, closed]["all_replies_mtd"] > before[slug, closed]["all_replies_mtd"]
        for slug in clients
    )
    plans = ("emails_scheduled_today", "emails_scheduled_tomorrow")
    assert {(slug, plan): after[slug, TODAY][plan] for slug in clients for plan in plans} == {
        (slug, plan): before[slug, TODAY][plan] for slug in clients for plan in plans
    }


def test_a_date_that_is_synced_alone_has_the_row_that_it_has_in_a_block(
    agency: Agency,
) -> None:
    clients, dates = agency.workspaces[4:7], WEEK_AND_TODAY[-4:]
    agency.synced(dates, clients)
    together = agency.rows()

    for day in dates:
        agency.synced([day], clients)

    assert without(agency.rows(), "updated_at") == without(together, "updated_at")


def test_rows_carry_trimmed_labels_and_say_that_a_sync_wrote_them(agency: Agency) -> None:
    names = {int(row["bison_workspace_id"]): row for row in agency.bison.clients()}
    untidy = [
        slug for slug, it in agency.ids.items() if names[it]["name"] != names[it]["name"].strip()
    ]
    own_label = [slug for slug, it in agency.ids.items() if names[it]["display_name"]]
    assert untidy
    assert own_label

    agency.synced([TODAY], list({*untidy, *own_label[:2], *agency.some[:2]}))

    for (slug, _), row in agency.rows().items():
        label = names[agency.ids[slug]]
        assert row["workspace_name"] == label["name"].strip()
        assert row["display_name"] == (label["display_name"].strip() or label["name"].strip())
        assert (row["metric_type"], row["source"]) == ("mtd", "sync")
