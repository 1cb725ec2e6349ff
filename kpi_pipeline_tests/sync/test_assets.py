"""Rows that are computed again without a call, and a run that lacks the facts for it."""

from datetime import date, timedelta

import pytest

from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.tables import (
    client_metrics,
    kpi_projections,
    webhook_events,
)
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import PARTITION_COLUMNS
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline_tests.agency import Agency, errors, without, write
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.domain.bodies import lead

DATES = days_between(TODAY - timedelta(days=2), TODAY)


def test_recomputing_asks_email_bison_for_nothing_and_finds_the_same_numbers(
    agency: Agency,
) -> None:
    clients = [agency.keyed[0], agency.keyless[0]]
    agency.synced(DATES, clients)
    before = agency.all_rows()
    agency.forget_calls()
    # Not even an address is needed.
    unplugged = agency.with_settings(bison_instances=())

    outcomes = unplugged.sync(DATES, clients, fetch=False)

    assert errors(outcomes) == {}
    assert agency.calls() == {}
    assert {(it.key_used, it.api_calls, it.fact_days) for it in outcomes.values()} == {(None, 0, 0)}
    after = agency.all_rows()
    assert without(after, "updated_at") == without(before, "updated_at")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {kpi_projections.name, client_metrics.name}
    assert {slug: list(it.numbers) for slug, it in outcomes.items()} == dict.fromkeys(
        clients, DATES
    )


@pytest.mark.parametrize("fetch", [True, False])
def test_an_event_that_a_run_applies_shows_in_both_tables_whether_it_fetches_or_not(
    agency: Agency, *, fetch: bool
) -> None:
    slug = agency.keyed[0]
    agency.synced([TODAY], [slug])
    before = agency.rows()[slug, TODAY]["positive_replies_mtd"]
    event = lead(1, agency.ids[slug], NOW + timedelta(minutes=1))
    ingest(inbox_of(agency.app, realtime=False), [event])

    assert errors(agency.sync([TODAY], [slug], fetch=fetch)) == {}

    [stored] = agency.table(webhook_events)
    assert stored["status"] == "applied"
    for table in (kpi_projections, client_metrics):
        assert agency.rows(table)[slug, TODAY]["positive_replies_mtd"] == before + 1


def test_the_reported_numbers_hold_an_event_that_came_after_the_fetch(agency: Agency) -> None:
    slug = agency.keyed[0]
    fetched = agency.sync([TODAY], [slug])[slug].numbers[TODAY]
    event = lead(1, agency.ids[slug], NOW + timedelta(minutes=1))
    ingest(inbox_of(agency.app, realtime=False), [event])

    reported = agency.sync([TODAY], [slug], fetch=False)[slug].numbers[TODAY]

    before = dict(zip(PARTITION_COLUMNS, fetched.metrics, strict=True))
    after = dict(zip(PARTITION_COLUMNS, reported.metrics, strict=True))
    for column in ("positive_replies_today", "positive_replies_mtd"):
        assert after[column] == (before[column] or 0) + 1


def test_a_new_target_shows_once_the_rows_are_recomputed(agency: Agency) -> None:
    slug = agency.keyed[0]
    agency.synced([TODAY], [slug])
    before = agency.rows()[slug, TODAY]
    rows = agency.bison.http.get("/sandbox/clients.csv").text
    (kept,) = [
        it for it in parse(rows, ["main"], "csv") if it.bison_workspace_id == agency.ids[slug]
    ]
    doubled = type(kept)(**{**vars(kept), "monthly_kpi_target": 1000})
    write(agency.app, [doubled], targets_from=TODAY.replace(day=1))

    assert errors(agency.sync([TODAY], [slug], fetch=False)) == {}

    after = agency.rows()[slug, TODAY]
    assert after["monthly_kpi_target"] == 1000
    assert after["mtd_leads_progress"] * 10 == after["positive_replies_mtd"]
    assert before["positive_replies_mtd"] == after["positive_replies_mtd"] > 0


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([], "has no facts of 2026-03-16, 2026-03-17, 2026-03-18"),
        (DATES[:1], "has no facts of 2026-03-17, 2026-03-18"),
    ],
)
def test_a_client_that_lacks_facts_says_so_and_nothing_of_it_is_written(
    agency: Agency, stored: list[date], said: str
) -> None:
    fine, lacking = agency.keyed[:2]
    agency.synced(DATES, [fine])
    if stored:
        agency.synced(stored, [lacking])
    before = agency.all_rows()

    outcomes = agency.sync(DATES, [fine, lacking], fetch=False)

    (error,) = errors(outcomes).values()
    assert error.startswith(f"{lacking} {said}")
    assert "press Materialize" in error
    after = agency.all_rows()
    for name, rows in after.items():
        assert {key: row for key, row in rows.items() if key[0] == lacking} == {
            key: row for key, row in before[name].items() if key[0] == lacking
        }
    assert after["client_metrics"] != before["client_metrics"], "the other client's rows are new"
