"""Each of the three assets alone: recomputing needs no call, and says which input is missing."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.tables import (
    client_metrics,
    kpi_projections,
    raw_bison_stats,
    webhook_events,
)
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.agency import Agency, errors, without, write
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.domain.bodies import lead

DATES = days_between(TODAY - timedelta(days=2), TODAY)
RECOMPUTE = [KpiAsset.PROJECTIONS, KpiAsset.METRICS]


@pytest.mark.parametrize(
    "assets",
    [[KpiAsset.PROJECTIONS], [KpiAsset.METRICS], RECOMPUTE],
    ids=lambda assets: "+".join(assets),
)
def test_recomputing_asks_email_bison_for_nothing_and_finds_the_same_numbers(
    agency: Agency, assets: Sequence[KpiAsset]
) -> None:
    clients = [agency.keyed[0], agency.keyless[0]]
    agency.synced(DATES, clients)
    before = agency.all_rows()
    agency.forget_calls()
    # Not even an address is needed.
    unplugged = agency.with_settings(bison_instances=())

    outcomes = unplugged.sync(DATES, clients, assets)

    assert errors(outcomes) == {}
    assert agency.calls() == {}
    assert {(it.key_used, it.api_calls, it.fact_days) for it in outcomes.values()} == {(None, 0, 0)}
    after = agency.all_rows()
    assert without(after, "updated_at") == without(before, "updated_at")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {it.value for it in RECOMPUTE}, "the two tables stay in step"
    assert {slug: list(it.numbers) for slug, it in outcomes.items()} == dict.fromkeys(
        clients, DATES
    )


@pytest.mark.parametrize("assets", [[it] for it in KpiAsset] + [RECOMPUTE], ids="+".join)
def test_an_event_that_a_run_applies_shows_in_both_tables_whichever_assets_it_is_for(
    agency: Agency, assets: Sequence[KpiAsset]
) -> None:
    slug = agency.keyed[0]
    agency.synced([TODAY], [slug])
    before = agency.rows()[slug, TODAY]["positive_replies_mtd"]
    event = lead(1, agency.ids[slug], NOW + timedelta(minutes=1))
    ingest(inbox_of(agency.app, realtime=False), [event])

    assert errors(agency.sync([TODAY], [slug], assets)) == {}

    [stored] = agency.table(webhook_events)
    assert stored["status"] == "applied"
    for table in (kpi_projections, client_metrics):
        assert agency.rows(table)[slug, TODAY]["positive_replies_mtd"] == before + 1


@pytest.mark.parametrize("assets", [[KpiAsset.PROJECTIONS], RECOMPUTE], ids="+".join)
def test_the_plotted_numbers_hold_an_event_that_came_after_the_fetch(
    agency: Agency, assets: Sequence[KpiAsset]
) -> None:
    slug = agency.keyed[0]
    fetched = agency.sync([TODAY], [slug])[slug].numbers[TODAY]
    event = lead(1, agency.ids[slug], NOW + timedelta(minutes=1))
    ingest(inbox_of(agency.app, realtime=False), [event])

    plotted = agency.sync([TODAY], [slug], assets)[slug].numbers[TODAY]

    assert plotted.positive_replies == fetched.positive_replies + 1
    assert plotted.positive_replies_mtd == (fetched.positive_replies_mtd or 0) + 1


def test_the_plotted_numbers_of_facts_that_were_fetched_alone_are_those_facts(
    agency: Agency,
) -> None:
    slug = agency.keyed[0]
    agency.synced([TODAY], [slug])
    older = agency.rows()[slug, TODAY]["emails_sent_today"]
    agency = agency.moved_to(NOW + timedelta(hours=2))

    plotted = agency.sync([TODAY], [slug], [KpiAsset.FACTS])[slug].numbers[TODAY]

    assert plotted.emails_sent == agency.rows(raw_bison_stats)[slug, TODAY]["sent"] > older


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

    assert errors(agency.sync([TODAY], [slug], RECOMPUTE)) == {}

    after = agency.rows()[slug, TODAY]
    assert after["monthly_kpi_target"] == 1000
    assert after["mtd_leads_progress"] * 10 == after["positive_replies_mtd"]
    assert before["positive_replies_mtd"] == after["positive_replies_mtd"] > 0


def test_fetching_facts_alone_writes_no_other_table(agency: Agency) -> None:
    slug = agency.keyed[0]

    outcome = agency.sync(DATES, [slug], [KpiAsset.FACTS])[slug]

    assert outcome.error is None
    rows = agency.all_rows()
    assert rows[raw_bison_stats.name]
    assert rows[kpi_projections.name] == rows[client_metrics.name] == {}
    assert outcome.numbers[TODAY].positive_replies_mtd is None
    assert outcome.numbers[TODAY].emails_sent > 0


@pytest.mark.parametrize(
    ("assets", "stored", "said"),
    [
        ([KpiAsset.PROJECTIONS], [], "has no facts of 2026-03-16, 2026-03-17, 2026-03-18"),
        (RECOMPUTE, [], "has no facts of 2026-03-16, 2026-03-17, 2026-03-18"),
        ([KpiAsset.METRICS], [], "has no projections of 2026-03-16, 2026-03-17, 2026-03-18"),
        ([KpiAsset.PROJECTIONS], DATES[:1], "has no facts of 2026-03-17, 2026-03-18"),
        ([KpiAsset.METRICS], DATES[1:], "has no projections of 2026-03-16. "),
    ],
)
def test_an_asset_that_lacks_its_input_says_so_and_writes_nothing(
    agency: Agency, assets: Sequence[KpiAsset], stored: list[date], said: str
) -> None:
    fine, lacking = agency.keyed[:2]
    agency.synced(DATES, [fine])
    if stored:
        agency.synced(stored, [lacking])
    before = agency.all_rows()

    outcomes = agency.sync(DATES, [fine, lacking], assets)

    (error,) = errors(outcomes).values()
    assert error.startswith(f"{lacking} {said}")
    assert "Materialize " in error
    after = agency.all_rows()
    for name, rows in after.items():
        assert {key: row for key, row in rows.items() if key[0] == lacking} == {
            key: row for key, row in before[name].items() if key[0] == lacking
        }
    assert after[assets[-1].value] != before[assets[-1].value], "the other client's rows are new"
