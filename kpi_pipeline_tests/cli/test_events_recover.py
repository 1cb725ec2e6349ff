"""`kpi events recover`: reads the event feed by hand."""

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.tables import webhook_events
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, cells, days_ago, rows_of

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("imported")]


def _workspace(kpi: Kpi, row: dict[str, str]) -> str:
    """The key of the client that has this workspace in Email Bison."""
    number = row["bison_workspace_id"]
    (line,) = [it for it in kpi("clients", "list").answer().splitlines() if f" {number} " in it]
    return line.split("│")[1].strip()


def test_events_that_no_webhook_delivered_are_stored_once(
    kpi: Kpi, live_bison: Bison, engine: Engine
) -> None:
    own = live_bison.with_key()[0]
    workspace = _workspace(kpi, own)
    live_bison.mark(own, 2, deliver=False)
    words = ("events", "recover", "--since", days_ago(0).isoformat(), "-w", workspace)

    first = kpi(*words).answer()
    again = kpi(*words).answer()

    stored = rows_of(engine, webhook_events)["webhook_events"]
    assert sum(it["event_type"] == "lead_interested" for it in stored) >= 2
    assert {(it["workspace"], it["source"], it["deliveries"]) for it in stored} == {
        (workspace, "feed", 0)
    }
    assert first.startswith(f"Read the feeds of 1 client: {len(stored)} new events,")
    assert again.startswith("Read the feeds of 1 client: 0 new events,")
    listed = cells(kpi("events", "list").answer(), str(stored[-1]["id"]))
    assert workspace in listed


def test_an_instance_without_a_feed_is_named(kpi: Kpi, live_bison: Bison) -> None:
    live_bison.variants(event_feed="missing")
    workspace = _workspace(kpi, live_bison.with_key()[0])

    result = kpi("events", "recover", "--since", days_ago(1).isoformat(), "-w", workspace)

    assert result.code == 1
    assert "Error: Instance main has no event feed." in result.err
