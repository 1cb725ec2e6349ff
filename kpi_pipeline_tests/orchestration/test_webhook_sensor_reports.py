"""What the sensor of stored events says: its cursor, its errors, and what the asset shows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.inbox.support import fail_rows_above
from kpi_pipeline_tests.orchestration.installation import Installation, rows_of
from kpi_pipeline_tests.orchestration.test_webhook_sensor import (
    evaluate,
    execute,
    fill,
    requested,
    store_leads,
)

pytestmark = pytest.mark.runs


@pytest.fixture
def stocked(installation: Installation) -> Installation:
    return fill(installation)


def test_a_problem_with_the_folder_of_files_is_reported_and_stops_nothing_else(
    stocked: Installation, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "not-a-folder"
    in_the_way.write_text("a file")
    app = stocked.agency.app
    settings = app.settings.model_copy(update={"event_drop_dir": in_the_way})
    without_folder = replace(app, settings=settings)

    alone = evaluate(stocked, without_folder)
    store_leads(stocked, stocked.workspaces[0], stocked.today)

    assert alone.skip_reason is not None
    assert "The files of KPI_EVENT_DROP_DIR could not be ingested" in str(
        alone.skip_reason.skip_message
    )
    assert len(requested(stocked, evaluate(stocked, without_folder))) == 1


def test_while_the_database_is_unreachable_a_tick_fails_with_a_sentence(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", "postgresql://kpi@127.0.0.1:1/kpi")
    monkeypatch.setattr(
        "kpi_pipeline.app.retry_on_disconnect", lambda work: retry_on_disconnect(work, seconds=0)
    )
    sensor = installation.definitions.resolve_sensor_def("webhook_event_sensor")
    resources = installation.definitions.resources or {}

    with (
        dg.build_sensor_context(instance=installation.instance, resources=resources) as context,
        pytest.raises(dg.Failure, match="database") as failure,
    ):
        sensor(context)

    assert failure.value.__suppress_context__
    assert failure.value.__cause__ is None
    assert load_settings().database_url is not None


def reports(result: dg.SensorResult) -> list[dict[str, object]]:
    """The metadata of each report to the catalogue."""
    return [
        {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_events
    ]


def test_applied_events_are_reported_as_a_materialization_once_a_minute_at_most(
    stocked: Installation,
) -> None:
    first, second = stocked.workspaces[:2]
    app = stocked.agency.app
    start = datetime.now(UTC)

    def at(seconds: int, cursor: str | None) -> dg.SensorResult:
        now = start + timedelta(seconds=seconds)
        return evaluate(stocked, replace(app, now=lambda: now), cursor)

    def apply(workspace: str, number: int, seconds: int) -> None:
        ids = store_leads(stocked, workspace, stocked.today, number, realtime=True)
        stocked.agency.sql(
            "UPDATE webhook_events SET applied_at = :at WHERE id = ANY(:ids)",
            at=start + timedelta(seconds=seconds),
            ids=ids,
        )

    apply(first, 2, seconds=1)
    apply(second, 3, seconds=2)
    first_minute = at(20, None)
    apply(first, 1, seconds=30)
    too_soon = at(60, first_minute.cursor)
    again = at(90, too_soon.cursor)
    nothing_new = at(200, again.cursor)

    (report,) = reports(first_minute)
    assert report["applied"] == 5
    assert rows_of(report["applied_by_client"]) == [
        {"client": second, "applied": 3},
        {"client": first, "applied": 2},
    ]
    assert reports(too_soon) == []
    assert [it["applied"] for it in reports(again)] == [1]
    assert reports(nothing_new) == []


def test_an_event_that_breaks_the_rows_is_set_aside_and_its_clients_numbers_recover(
    installation: Installation,
) -> None:
    agency, today = installation.agency, installation.today
    bad, good = installation.workspaces[:2]
    agency.synced([today], [bad, good])
    before = {key: installation.leads_this_month(key) for key in (bad, good)}
    most = agency.rows()[bad, today]["positive_replies_today"]
    fail_rows_above(agency.app.engine, bad, most)
    (poison,) = store_leads(installation, bad, today)
    (fine,) = store_leads(installation, good, today)

    (run,) = execute(installation, evaluate(installation))

    assert not run.success
    assert f"{bad}: computing its rows failed" in installation.failure(run)
    assert "1 of 2 clients failed" in installation.failure(run)
    assert installation.statuses() == {poison: "received", fine: "applied"}
    assert installation.leads_this_month(good) == before[good] + 1
    assert requested(installation, evaluate(installation)) == [], "it is not due"

    for tries in (2, 3, 4, 5):
        installation.agency.sql(
            "UPDATE webhook_events SET next_try_at = now() WHERE id = :id", id=poison
        )
        result = evaluate(installation)
        assert requested(installation, result) == [([bad], today, today)], tries
        execute(installation, result)

    assert installation.statuses()[poison] == "set_aside"
    assert requested(installation, evaluate(installation)) == []
    checks = installation.run(assets=["webhook_events"]).get_asset_check_evaluations()
    (outcome,) = [it for it in checks if it.check_name == "events_applied"]
    (row,) = rows_of(outcome.metadata["problems"])
    assert (row["id"], row["client"], row["problem"]) == (poison, bad, "set aside")
    assert "failed" in str(row["reason"])
    # The next sync works again, and later events are applied; only this event is left out.
    agency.synced([today], [bad])
    assert installation.leads_this_month(bad) == before[bad]
