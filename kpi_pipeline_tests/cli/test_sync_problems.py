from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.tables import (
    client_metrics,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
    sync_log,
)
from kpi_pipeline.instances import format_instances
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, Result, closed_port, days_ago, rows_of, written
from kpi_pipeline_tests.conftest import instance_of

NUMBERS = (raw_bison_stats, kpi_projections, client_metrics, sending_plans)
NOTHING: dict[str, list[object]] = {table.name: [] for table in (*NUMBERS, sync_log)}


@pytest.fixture
def keyless(engine: Engine, imported: None) -> list[str]:
    """The keys of the clients without an API key of their own."""
    with engine.connect() as connection:
        return [client.workspace for client in all_clients(connection) if not client.has_key]


def _nothing_happened(engine: Engine, bison: Bison, calls_before: int) -> None:
    assert rows_of(engine, *NUMBERS, sync_log) == NOTHING
    assert len(bison.calls()) == calls_before


def _failures(result: Result) -> list[str]:
    """The lines of the report that name a failed client."""
    return [line for line in result.out.splitlines() if line.startswith("✗ ")]


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--date", "2001-01-01"), "2001-01-01 is outside the dates"),
        (("--date", "2999-01-01"), "2999-01-01 is outside the dates"),
        (
            ("--workspace", "nobody"),
            "There is no client nobody. `kpi clients list`",
        ),
    ],
)
def test_what_has_no_partition_is_rejected_before_anything_happens(
    kpi: Kpi,
    live_bison: Bison,
    engine: Engine,
    words: tuple[str, ...],
    message: str,
) -> None:
    calls = len(live_bison.calls())
    error = kpi("sync", *words).error()
    assert error.startswith(message)
    _nothing_happened(engine, live_bison, calls)


@pytest.mark.usefixtures("imported")
def test_a_date_outside_the_partitions_is_rejected_with_their_bounds(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_FIRST_DATE", days_ago(9).isoformat())
    for day in (days_ago(10), days_ago(-1)):
        assert kpi("sync", "--date", day.isoformat()).error() == (
            f"{day} is outside the dates from {days_ago(9)} (KPI_FIRST_DATE) to today, "
            f"{days_ago(0)}. Choose one of those."
        )


@pytest.mark.usefixtures("imported")
def test_a_first_date_in_the_future_is_rejected_with_the_setting(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_FIRST_DATE", days_ago(-1).isoformat())
    for words in ((), ("--date", days_ago(0).isoformat())):
        error = kpi("sync", *words).error()
        assert error.startswith(f"There are no dates to fill yet: KPI_FIRST_DATE is {days_ago(-1)}")


@pytest.mark.parametrize("text", ["2026-13-01", "2026-02-30", "18.3.2026", "today", ""])
def test_a_malformed_date_is_a_usage_error(kpi: Kpi, text: str) -> None:
    for command in ("sync", "metrics"):
        result = kpi(command, "--date", text)
        assert (result.code, result.out) == (2, "")
        assert "Invalid value for '--date'" in result.err


def test_a_sync_without_clients_says_how_to_import_some(kpi: Kpi, configured: URL) -> None:
    error = kpi("sync").error()
    assert error == "There are no active clients. Import some with `kpi clients import FILE.csv`."


def test_an_inactive_client_is_refused_and_left_out(
    kpi: Kpi, live_bison: Bison, engine: Engine, tmp_path: Path
) -> None:
    rows = ["instance,bison_workspace_id,name,active", "main,901,Heron Tide,no"]
    kpi("clients", "import", written(tmp_path / "c.csv", *rows)).answer()
    error = kpi("sync", "--workspace", "heron-tide").error()
    assert error == "Not active: heron-tide. Import the client again with active = yes."
    assert kpi("sync").error().startswith("There are no active clients.")
    _nothing_happened(engine, live_bison, 0)


@pytest.mark.server
@pytest.mark.long
def test_without_the_master_key_only_the_clients_that_need_it_fail_and_the_others_land(
    kpi: Kpi,
    live_bison: Bison,
    keyless: list[str],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = instance_of(live_bison)
    keyless_instance = replace(whole, master_key=None)
    monkeypatch.setenv("KPI_BISON_INSTANCES", format_instances([keyless_instance]))
    day = days_ago(40).isoformat()
    result = kpi("sync", "--date", day)
    assert result.code == 1
    assert f"{26 - len(keyless)} of 26 clients ok" in result.out
    failures = _failures(result)
    assert [line.split()[1] for line in failures] == [f"{key}:" for key in keyless]
    for line in failures:
        assert line.endswith(
            "Give the client an api_key in the CSV and import it (`kpi clients import`), or give "
            "its instance a super-admin key in KPI_BISON_INSTANCES."
        )
    assert "Correct what is named above, and run the same command again." in result.err
    landed = {row["workspace"] for row in rows_of(engine, client_metrics)["client_metrics"]}
    assert len(landed) == 26 - len(keyless)
    assert not landed & set(keyless)
    monkeypatch.setenv("KPI_BISON_INSTANCES", format_instances([whole]))
    assert "26 of 26 clients ok" in kpi("sync", "--date", day).answer()


@pytest.mark.server
@pytest.mark.usefixtures("imported")
@pytest.mark.long
def test_an_email_bison_that_does_not_answer_is_named_for_each_client_and_no_row_changes(
    kpi: Kpi, live_bison: Bison, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sync", "--date", days_ago(0).isoformat())
    kpi(*words).answer()
    before = rows_of(engine, *NUMBERS)
    silent = replace(instance_of(live_bison), url=f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("KPI_BISON_INSTANCES", format_instances([silent]))
    result = kpi(*words)
    assert result.code == 1
    assert "0 of 26 clients ok" in result.out
    workspaces = [row["workspace"] for row in before["client_metrics"]]
    failures = _failures(result)
    assert [line.split()[1] for line in failures] == [f"{key}:" for key in workspaces]
    for line in failures:
        assert "got no answer at try 1 of 1" in line
        assert (
            "Check that Email Bison is up and its address in KPI_BISON_INSTANCES is right" in line
        )
    assert rows_of(engine, *NUMBERS) == before


@pytest.mark.server
def test_an_instance_that_is_not_configured_is_named_for_each_client(
    kpi: Kpi, keyless: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "east http://127.0.0.1:9")
    result = kpi("sync", "--date", days_ago(1).isoformat(), "--workspace", keyless[0])
    assert result.code == 1
    (line,) = _failures(result)
    assert line.startswith(f"✗ {keyless[0]}: ")
    assert "'main' is not configured; known: east." in line
