"""`kpi backfill` in a Dagster that is running: joined again, and with a client that fails."""

import signal
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline_tests.cli.running import ended, kpi_in_a_process, launched
from kpi_pipeline_tests.end_to_end.running import RunningAgency

pytestmark = [pytest.mark.server, pytest.mark.long]


@pytest.fixture
def configured(agency: RunningAgency, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a person at work in the agency's installation."""
    port = urlsplit(agency.page.url).port
    settings = agency.app.settings.model_copy(update={"web_port": port})
    for name, value in child_environment(settings).items():
        if name.startswith("KPI_"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def rejected(agency: RunningAgency) -> Iterator[str]:
    """A client whose key Email Bison rejects, as long as the test lasts."""
    workspace = next(key for key in agency.workspaces[1:] if agency.key(key))
    agency.revoke(workspace)
    yield workspace
    agency.restore(workspace)


@pytest.mark.timeout(1_200)
@pytest.mark.usefixtures("configured")
def test_a_backfill_that_is_left_goes_on_and_is_joined_again(agency: RunningAgency) -> None:
    workspaces = list(agency.workspaces[20:23])
    dates = days_between(agency.today - timedelta(days=124), agency.today - timedelta(days=123))
    before = agency.rows().keys()
    clients = [word for key in workspaces for word in ("-w", key)]
    words = ("--from", str(dates[0]), "--to", str(dates[1]), *clients)

    with kpi_in_a_process("backfill", *words) as process:
        backfill_id, target = launched(process)
        process.send_signal(signal.SIGINT)
        left = ended(process, seconds=600)

    assert (left.code, left.out) == (130, "")
    again = f"follow it again with `kpi backfill --follow {backfill_id}`"
    assert f"The backfill continues in Dagster; {again}" in left.err
    assert target == f"6 partitions of 3 clients; {agency.page.url}/runs/b/{backfill_id}"

    with kpi_in_a_process("backfill", "--follow", backfill_id) as process:
        joined = ended(process, seconds=600)

    assert joined.code == 0, joined
    assert "3 of 3 clients ok in" in joined.out
    assert "No row is missing: 6 in raw_bison_stats, 6 in kpi_projections, 6 in" in joined.out
    assert "Dagster is not running" not in joined.err
    assert agency.rows().keys() - before == {(key, day) for key in workspaces for day in dates}


@pytest.mark.timeout(1_200)
@pytest.mark.usefixtures("configured")
def test_a_client_whose_key_is_rejected_is_named_with_its_gaps_after_its_second_try(
    agency: RunningAgency, rejected: str
) -> None:
    place = agency.workspaces.index(rejected)
    workspaces = list(agency.workspaces[place - 1 : place + 2])
    healthy = [key for key in workspaces if key != rejected]
    dates = days_between(agency.today - timedelta(days=304), agency.today - timedelta(days=303))
    # So long ago that no other test's windows reach back to them.
    clients = [word for key in workspaces for word in ("-w", key)]

    with kpi_in_a_process(
        "backfill", "--from", str(dates[0]), "--to", str(dates[1]), *clients
    ) as process:
        result = ended(process, seconds=600)

    assert result.code == 1, result
    lines = result.out.splitlines()
    assert lines[1].startswith("2 of 3 clients ok in")
    (named,) = [line for line in lines if line.startswith("✗")]
    assert rejected in named
    assert "kpi clients import" in named
    gaps = lines.index(
        "Rows are missing: of 6 in each table there are 4 in raw_bison_stats, "
        "4 in kpi_projections, 4 in client_metrics:"
    )
    assert lines[gaps + 1 :] == [f"  {rejected}: {dates[0]} to {dates[1]}"]
    assert f"kpi backfill --from {dates[0]} --to {dates[1]} -w {rejected}`" in result.err
    rows = agency.rows()
    assert all((key, day) in rows for key in healthy for day in dates)
    # One run over the three clients, and one that retries this client alone.
    tries = agency.sql(
        "SELECT 1 FROM sync_log WHERE workspace = :key AND last_date = ANY(:days)",
        key=rejected,
        days=dates,
    )
    assert len(tries) == 2
