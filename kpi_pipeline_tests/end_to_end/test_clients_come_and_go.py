"""Clients are deactivated, imported, renamed and refused during a backfill: the others complete."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import URL

from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.tables import client_metrics, kpi_projections, raw_bison_stats
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import SERIES, write
from kpi_pipeline_tests.end_to_end.running import RunningAgency, running_agency

pytestmark = [pytest.mark.long, pytest.mark.weekly, pytest.mark.timeout(1_200)]


@pytest.fixture
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgency]:
    options = {"clients": 8, "calls-per-second": 0, "latency": 0}
    with running_agency(postgres, administer, tmp_path_factory.mktemp("agency"), options) as agency:
        yield agency


def test_a_backfill_of_8_clients_and_62_days_loses_only_those_that_it_must(
    agency: RunningAgency,
) -> None:
    dates = days_between(agency.today - timedelta(days=70), agency.today - timedelta(days=9))
    clients = list(agency.workspaces)
    revoked = next(it for it in clients if it in agency.keyed)
    renamed, gone, *_ = (it for it in clients[1:-1] if it != revoked)
    healthy = [it for it in clients if it not in (revoked, gone)]

    # The runs last for some seconds.
    agency.bison.fault("slow", path=SERIES, seconds=6, times=len(clients))
    backfill = agency.launch_backfill(dict.fromkeys(clients, dates))
    # The daemon has launched no run yet.
    agency.sql("UPDATE clients SET active = false WHERE workspace = :gone", gone=gone)
    agency.revoke(revoked)
    agency.rename(renamed, "Another Name")
    agency.control("POST", "workspaces", name="Clover Middle")
    listed = agency.bison.http.get("/sandbox/clients.csv").text.splitlines()
    added = [line for line in listed if "Clover Middle" in line]
    write(agency.app, parse("\n".join([listed[0], *added]), agency.app.instances(), "new.csv"))
    # It used to remove the partition of the client that is gone, and with it the whole backfill.
    assert agency.run(["client_registry"], {})[0] is RunStatus.SUCCESS
    ended = agency.end_of(backfill)
    agency.poll(agency.is_at_rest, "the end of all retries")

    assert ended == "COMPLETED_FAILED"
    filled = {(client, day) for client in healthy for day in dates}
    for table in (raw_bison_stats, kpi_projections, client_metrics):
        found = {key for key in agency.rows(table) if key[1] in dates}
        assert {key for key in found if key[0] in (gone, revoked)} == set()
        assert {key for key in found if key[0] in clients} == filled
    rows = agency.rows()
    expected = agency.expected(dates, healthy)
    assert [
        key
        for key, row in expected.items()
        if any(rows[key][name] != value for name, value in row.items())
    ] == []
    red = agency.failed_partitions("client_metrics", dates)
    assert {key for key in red if not key.endswith(f"|{gone}")} == {
        f"{day}|{revoked}" for day in dates
    }
    assert not [run for run in agency.runs("FAILURE") if run.ends == {gone}], "it is not retried"
