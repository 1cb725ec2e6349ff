"""The sensor brings events that no gateway applied into the numbers and onto the page."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any

import pytest

from kpi_pipeline.domain.events.event import EventSource
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.end_to_end.running import RunningAgency

pytestmark = [pytest.mark.server, pytest.mark.long]


def body(workspace_id: int) -> bytes:
    """A lead of the workspace turned interested."""
    content = {
        "event": {"type": "LEAD_INTERESTED", "workspace_id": workspace_id},
        "data": {"lead": {"id": secrets.randbits(40)}, "campaign": {"id": 7}},
    }
    return json.dumps(content).encode()


def drop(agency: RunningAgency, *bodies: bytes) -> None:
    """Let a whole file of events appear in the folder, as another program would."""
    folder = agency.app.settings.drop_dir
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "leads.jsonl.tmp"
    unfinished.write_bytes(b"\n".join(bodies))
    unfinished.replace(folder / "leads.jsonl")


def store_alone(agency: RunningAgency, *bodies: bytes) -> None:
    """Store the events as the gateway does with KPI_REALTIME off."""
    events = [
        parse_event(
            it,
            instance="main",
            source=EventSource.WEBHOOK,
            arrived_at=datetime.now(UTC),
            tz=agency.app.timezone,
        )
        for it in bodies
    ]
    ingest(inbox_of(agency.app, realtime=False), events)


def reported(agency: RunningAgency) -> int:
    """How many applied events the asset's page shows, over all its reports."""
    query = """{ assetNodeOrError(assetKey: {path: ["webhook_events"]}) { ... on AssetNode {
        assetMaterializations(limit: 20) { metadataEntries {
            label ... on IntMetadataEntry { intValue } } } } } }"""
    node: Any = agency.page.query(query, {})["assetNodeOrError"]
    return sum(
        entry["intValue"]
        for materialization in node["assetMaterializations"]
        for entry in materialization["metadataEntries"]
        if entry["label"] == "applied"
    )


def test_dropped_files_and_stored_events_are_in_the_numbers_and_on_the_page(
    agency: RunningAgency,
) -> None:
    dropped, stored = agency.workspaces[2:4]
    today = agency.today
    tags = block_tags([dropped, stored], [today])
    status, run_id = agency.run(ASSETS, tags)
    assert status is RunStatus.SUCCESS, agency.log_of(run_id)
    # A run that another test left behind would make calls, too.
    agency.poll(agency.is_at_rest, "the end of the runs of other tests")
    before = agency.rows()
    reported_before = reported(agency)
    calls = agency.bison.calls()

    drop(agency, body(agency.ids[dropped]), body(agency.ids[dropped]))
    store_alone(agency, body(agency.ids[stored]))

    def gained() -> dict[str, int]:
        rows = agency.rows()
        column = "positive_replies_mtd"
        return {
            key: rows[key, today][column] - before[key, today][column] for key in (dropped, stored)
        }

    agency.poll(lambda: gained() == {dropped: 2, stored: 1}, "the numbers")
    assert agency.bison.calls() == calls
    agency.poll(lambda: reported(agency) == reported_before + 3, "the report on the page")
    assert gained() == {dropped: 2, stored: 1}, "and they count once"
    done = agency.app.settings.drop_dir / "done"
    assert [file.name for file in done.iterdir()] == ["leads.jsonl"]
    # What Email Bison counts is the truth: it knows nothing of these leads.
    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS
    assert gained() == {dropped: 0, stored: 0}
