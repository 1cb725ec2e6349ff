"""The asset webhook_events, its checks, and events that break the rows."""

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS
from kpi_pipeline.orchestration.assets.webhook_events import applied_report
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.inbox.support import fail_rows_above
from kpi_pipeline_tests.orchestration.installation import Installation, lead, rows_of

pytestmark = pytest.mark.runs


def drop(installation: Installation, name: str, *bodies: Mapping[str, object]) -> Path:
    """Drop a file of events that was finished a minute ago."""
    folder = installation.agency.app.settings.drop_dir
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    finished = time.time() - 60
    os.utime(file, (finished, finished))
    return file


def check(installation: Installation) -> dg.AssetCheckEvaluation:
    """Materialize the asset by hand; what the check that comes with it says."""
    result = installation.run(assets=["webhook_events"])
    assert result.success
    evaluations = {it.check_name: it for it in result.get_asset_check_evaluations()}
    assert evaluations.keys() == {"events_applied", "webhooks_delivered"}
    assert evaluations["events_applied"].severity is dg.AssetCheckSeverity.WARN
    return evaluations["events_applied"]


def test_materializing_ingests_files_matches_events_of_new_clients_and_counts_all(
    installation: Installation,
) -> None:
    agency = installation.agency
    first = installation.workspaces[0]
    agency.synced([installation.today], [first])
    before = installation.leads_this_month(first)
    installation.store(lead(999, installation.today))
    imported(agency.app.engine, agency.app.vault, record(999, "Newcomer Ltd"))
    body = {
        "event": {"type": "LEAD_INTERESTED", "workspace_id": agency.ids[first]},
        "data": {"lead": {"id": 1}, "campaign": {"id": 2}},
    }
    file = drop(installation, "leads.jsonl", body, {**body, "data": {}})

    check(installation)

    event = installation.instance.get_latest_materialization_event(WEBHOOK_EVENTS)
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: it.value for name, it in event.asset_materialization.metadata.items()}
    assert metadata == {
        "dagster/row_count": 3,
        **{f"events_{status}": 0 for status in EventStatus},
        "events_applied": 1,
        "events_received": 1,
        "events_invalid": 1,
        "events_by_client": metadata["events_by_client"],
    }
    by_client = rows_of(metadata["events_by_client"])
    assert {(row["client"], row["events"]) for row in by_client} == {
        (first, 2),
        ("newcomer-ltd", 1),
    }
    assert installation.leads_this_month(first) == before + 1
    assert not file.exists()


def test_no_row_looks_out_of_date_because_events_were_reported(
    installation: Installation,
) -> None:
    workspace = installation.workspaces[0]
    assert installation.run(block_tags([workspace], [installation.today])).success
    installation.instance.report_runless_asset_event(applied_report({workspace: 3}))

    resolver = CachingStaleStatusResolver(
        installation.instance,
        installation.definitions.resolve_asset_graph(),
        LoadingContextForTest(installation.instance),
    )

    partition = dg.MultiPartitionKey({"date": str(installation.today), "workspace": workspace})
    assert {
        asset: resolver.get_status(dg.AssetKey(asset), partition) for asset in ASSETS
    } == dict.fromkeys(ASSETS, StaleStatus.FRESH)


def test_a_report_shows_the_fifty_busiest_clients_and_how_many_more_there_are() -> None:
    counts = {f"client-{number}": 100 - number for number in range(53)}

    metadata = applied_report(counts).metadata

    rows = [(row["client"], row["applied"]) for row in rows_of(metadata["applied_by_client"])]
    assert rows[:50] == list(counts.items())[:50]
    assert rows[50:] == [("3 more", 50 + 49 + 48)]
    assert metadata["applied"].value == sum(counts.values())


def test_the_check_names_each_event_that_does_not_count_and_what_to_do(
    installation: Installation,
) -> None:
    first, second, third = installation.workspaces[:3]
    now = datetime.now(UTC)
    ids, today = installation.agency.ids, installation.today
    assert check(installation).passed

    def arrived(workspace_id: int, **ago: float) -> int:
        event = lead(workspace_id, today, arrived_at=now - timedelta(**ago))
        return installation.store(event)[0]

    waiting, patient = arrived(ids[first], minutes=16), arrived(ids[first], minutes=14)
    stranger, fresh_stranger = arrived(9999, hours=25), arrived(9998, hours=23)
    old_stranger = arrived(9997, days=8)
    invalid, old_invalid = (
        installation.store(
            lead(
                ids[second],
                today,
                status=EventStatus.INVALID,
                metric=None,
                reason="The body can't be understood: it is no JSON object.",
                arrived_at=now - timedelta(days=days),
            ),
        )[0]
        for days in (6, 8)
    )
    aside = arrived(ids[third], days=20)
    installation.agency.sql(
        "UPDATE webhook_events SET status = 'set_aside', reason = 'Why.' WHERE id = :id",
        id=aside,
    )
    stopped = arrived(ids[installation.workspaces[3]], hours=2)
    installation.agency.sql(
        "UPDATE clients SET active = false WHERE workspace = :key",
        key=installation.workspaces[3],
    )

    evaluation = check(installation)

    assert not evaluation.passed
    assert {
        row["id"]: (row["problem"], row["client"])
        for row in rows_of(evaluation.metadata["problems"])
    } == {
        waiting: ("waiting", first),
        stranger: ("of no client", "main 9999"),
        invalid: ("invalid", second),
        aside: ("set aside", third),
    }
    assert {patient, fresh_stranger, old_stranger, old_invalid, stopped} <= set(
        installation.statuses()
    )
    counts = {name: it.value for name, it in evaluation.metadata.items() if name != "problems"}
    assert counts == {"waiting": 1, "of_no_client": 1, "invalid": 1, "set_aside": 1}
    description = evaluation.description or ""
    for remedy in ("kpi events list", "kpi events replay", "kpi clients import"):
        assert remedy in description


def test_a_sync_of_many_clients_counts_the_tries_too_and_keeps_its_other_rows(
    installation: Installation,
) -> None:
    agency, today = installation.agency, installation.today
    bad, good = installation.workspaces[:2]
    agency.synced([today], [bad, good])
    facts = agency.rows()[bad, today]["positive_replies_today"]
    fail_rows_above(agency.app.engine, bad, facts)
    # It arrives after the facts are asked for, whenever that is: no fetch holds it.
    later = lead(agency.ids[bad], today, arrived_at=datetime.now(UTC) + timedelta(hours=1))
    installation.store(later)

    for _ in range(5):
        outcomes = agency.sync([today], [bad, good])
        assert outcomes[good].error is None
        assert "kpi events list" in str(outcomes[bad].error)

    agency.synced([today], [bad, good])


def test_bodies_are_deleted_when_their_time_is_over_and_the_numbers_stay(
    installation: Installation,
) -> None:
    workspace, today = installation.workspaces[0], installation.today
    now = datetime.now(UTC)
    old, young = installation.store(
        *(
            lead(installation.agency.ids[workspace], today, arrived_at=now - timedelta(days=days))
            for days in (31, 29)
        ),
    )
    before = installation.statuses()
    job = installation.definitions.resolve_job_def("delete_old_event_bodies")

    assert job.execute_in_process(instance=installation.instance).success

    bodies = installation.agency.sql("SELECT id, body IS NULL AS gone FROM webhook_events")
    assert {row.id: row.gone for row in bodies} == {old: True, young: False}
    assert installation.statuses() == before
