"""`kpi status`: what it shows, its exit codes, and its JSON."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.status import print_status
from kpi_pipeline.db.alert_evaluations import store_evaluation
from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.orchestration import rebuild
from kpi_pipeline.orchestration.runtime import storage
from kpi_pipeline.services import status
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.status import Level
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.alerts.support import Office
from kpi_pipeline_tests.cli.running import Kpi, days_ago
from kpi_pipeline_tests.db.stocked import imported, record, stock_metrics

pytestmark = pytest.mark.server

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _stocked(configured: URL, engine: Engine, vault: Vault) -> None:
    """Two clients, synced just now; one of them failed an hour before."""
    assert configured.database
    imported(engine, vault, record(101, "Acme"), record(102, "Birch"))
    for workspace in ("acme", "birch"):
        for days in range(3):
            stock_metrics(engine, workspace, days_ago(days), display_name=workspace, as_of=NOW)
    with engine.begin() as connection:
        store_entry(connection, entry("early", "birch", "birch: its key was rejected", 60))
        store_entry(connection, entry("late", "acme", None, 1))
        store_entry(connection, entry("late", "birch", None, 0))


def entry(run: str, workspace: str, error: str | None, minutes_ago: float) -> SyncEntry:
    return SyncEntry(
        run_id=run,
        workspace=workspace,
        first_date=days_ago(1),
        last_date=days_ago(0),
        error=error,
        key_used="workspace",
        api_calls=3,
        seconds=2.0,
        waiting_seconds=0.0,
        calling_seconds=1.0,
        finished_at=NOW - timedelta(minutes=minutes_ago),
    )


def shown(text: str) -> str:
    """What was printed, without line ends and repeated blanks."""
    return " ".join(text.split())


def test_it_shows_each_client_each_run_and_each_failing_check(
    kpi: Kpi, engine: Engine, vault: Vault
) -> None:
    Office(engine, vault, []).check("complete", "acme", description="1 of 2 clients has rows.")
    result = kpi("status")
    screen = shown(result.out)
    assert re.search(r"acme .* \d min \d min ago birch", screen)
    assert "2 of 2 clients fresh. Checks: 0 of 1 pass, last checked" in screen
    assert "1 failed: birch: its key was rejected" in screen
    assert "ERROR complete: 1 of 2 clients has rows. Since " in screen
    assert result.code == 2


def test_before_the_first_kpi_up_on_a_database_one_line_says_so(kpi: Kpi) -> None:
    result = kpi("status")
    screen = shown(result.out)
    assert "ERROR Dagster has never run on this database: `kpi up` starts it." in screen
    assert "1 error, 0 warnings." in screen, "nothing that follows from it is repeated"
    assert result.code == 2


def test_before_the_first_kpi_up_one_line_says_so_and_no_database_is_started(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "a new state folder"
    monkeypatch.delenv("KPI_DATABASE_URL")
    monkeypatch.setenv("KPI_STATE_DIR", str(state))
    result = kpi("status")
    assert result.err.splitlines() == [
        f"Error: Nothing is set up in {state} yet: `kpi up` creates the database and starts the "
        "pipeline."
    ]
    assert (result.out, result.code) == ("", 2)
    assert not state.exists()
    document = json.loads(kpi("status", "--format", "json").out)
    assert (document["status"], document["exit_code"]) == ("error", 2)
    assert "Nothing is set up" in document["problems"][0]["text"]


def test_it_is_an_error_that_a_client_is_stale_and_it_says_for_how_long(
    engine: Engine, vault: Vault, capsys: pytest.CaptureFixture[str]
) -> None:
    with ready_databases(load_settings()) as settings:
        later = AppContext(settings, engine, vault, lambda: NOW + timedelta(hours=7))
        assert print_status(later) is Level.ERROR
    screen = shown(capsys.readouterr().out)
    assert "0 of 2 clients fresh" in screen
    assert "ERROR acme: its numbers are 7 h 0 min old" in screen


def test_without_dagsters_database_it_still_shows_what_the_tables_hold(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DAGSTER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    # What it does while Dagster's database restarts, other tests see.
    monkeypatch.setattr(storage, "retry_while_disconnected", lambda work: work())
    result = kpi("status")
    assert "2 of 2 clients fresh" in shown(result.out)
    assert "Dagster's database is unreachable" in shown(result.out)
    assert result.code == 2


def test_a_database_that_cannot_be_read_is_an_error_in_both_formats(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    result = kpi("status")
    assert result.code == 2
    assert result.err.startswith("Error: The database postgresql://nobody@127.0.0.1:1/none")
    document = json.loads(kpi("status", "--format", "json").out)
    assert [it["area"] for it in document["problems"]] == ["database"]


@pytest.fixture
def at_work(engine: Engine, dagster_database: URL) -> None:
    """A daemon whose claim is alive, and alerts that are evaluated."""
    claim: dict[str, Any] = {
        "holder": "made-up", "command": "kpi up", "host": "here", "pid": 1,
        "since": NOW.timestamp() + 3600, "renewed_at": NOW.timestamp() + 3600,
    }  # fmt: skip
    dagster = open_engine(dagster_database)
    with dagster.begin() as connection:
        statement = text("INSERT INTO kvs (key, value) VALUES (:key, :value)")
        values = {"key": DAEMON_CLAIM_KEY, "value": json.dumps(claim)}
        connection.execute(statement, values)
    dagster.dispose()
    with engine.begin() as connection:
        store_evaluation(connection, NOW)


@pytest.fixture
def grid_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what a Dagster that never ticked, and whose grid is empty, would add."""
    monkeypatch.setattr(status, "automation_problems", lambda *_: iter(()))
    monkeypatch.setattr(rebuild, "grid_gap", lambda *_: None)


@pytest.mark.usefixtures("at_work", "grid_is_fine")
def test_the_exit_code_is_0_if_all_is_well_1_with_warnings_and_2_with_an_error(
    kpi: Kpi, engine: Engine, vault: Vault
) -> None:
    office = Office(engine, vault, [])
    well = kpi("status")
    assert (well.code, well.out.splitlines()[-1]) == (0, "All is well."), well
    office.check("plausible", "acme", severity="WARN", description="No reply in 7 days.")
    warned = kpi("status")
    assert (warned.code, warned.out.splitlines()[-1]) == (1, "0 errors, 1 warning."), warned
    office.check("complete", "acme", description="1 of 2 clients has rows.")
    assert kpi("status").code == 2


@pytest.mark.usefixtures("at_work", "grid_is_fine")
def test_a_client_whose_key_is_rejected_is_an_error_while_its_rows_are_fresh(
    kpi: Kpi, engine: Engine
) -> None:
    with engine.begin() as connection:
        store_entry(connection, entry("last", "birch", "birch: Email Bison answered 401", -1))
    result = kpi("status")
    assert result.code == 2
    assert "ERROR birch: Email Bison answered 401. Since " in shown(result.out)


@pytest.mark.usefixtures("at_work", "grid_is_fine")
def test_a_daemon_that_is_gone_is_an_error_within_seconds(
    engine: Engine, vault: Vault, capsys: pytest.CaptureFixture[str]
) -> None:
    with ready_databases(load_settings()) as settings:
        later = AppContext(settings, engine, vault, lambda: NOW + timedelta(seconds=3600 + 20))
        assert print_status(later) is Level.ERROR
    screen = shown(capsys.readouterr().out)
    assert "Dagster's daemon (`kpi up`, process 1 on here) has been silent for 20 s" in screen
    assert "Dagster's daemon is not running." in screen


LONG = "the-longest-workspace-key-that-a-client-can-have-is-63-letters1"


@pytest.mark.usefixtures("at_work")
def test_with_long_names_it_fits_80_columns_and_cuts_nothing(
    kpi: Kpi, engine: Engine, vault: Vault
) -> None:
    assert len(LONG) == 63
    imported(engine, vault, record(103, LONG))
    stock_metrics(engine, LONG, days_ago(0), display_name=LONG, as_of=NOW)
    rejected = f"https://bison.agency.example/{'a-long-path/' * 8} was answered 401 (key {LONG})"
    with engine.begin() as connection:
        store_entry(connection, entry("long", LONG, f"{LONG}: {rejected}", 0))
    Office(engine, vault, []).check("plausible", LONG, description=f"{LONG} has no reply.")
    result = kpi("status")
    assert max(map(len, result.out.splitlines())) <= 80
    # A name that is longer than its column continues on the next line.
    letters = result.out.replace("\n", "").replace(" ", "")
    assert letters.count(f"{LONG}hasnoreply") == 1
    assert rejected.replace(" ", "") in letters
    assert "…" not in result.out


@pytest.mark.usefixtures("at_work", "grid_is_fine")
def test_the_json_has_the_documented_shape(kpi: Kpi, engine: Engine, vault: Vault) -> None:
    Office(engine, vault, []).check("complete", "acme", description="\x1b[2J acme\u202e")
    result = kpi("status", "--format", "json")
    document = json.loads(result.out)
    assert (document["status"], document["exit_code"], result.code) == ("error", 2, 2)
    assert result.out.isascii(), "a terminal shows it as text"
    (problem,) = document["problems"]
    assert problem == {
        "level": "error",
        "area": "check",
        "name": "complete",
        "text": "complete: \x1b[2J acme\u202e",
        "since": problem["since"],
        "clients": ["acme"],
    }
    assert document["daemon"] == {"running": True, "process": "`kpi up`, process 1 on here"}
    assert [it["workspace"] for it in document["clients"]] == ["acme", "birch"]
    assert document["clients"][0]["last_sync"]["calls"] == 3
    monitoring = (PROJECT_ROOT / "docs" / "monitoring.md").read_text()
    shape = monitoring.split("`kpi status --format json`")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([a-z_.\[\]]+)` ", shape, flags=re.MULTILINE)
    assert sorted(documented) == sorted(_paths(document))


def _paths(value: object, above: str = "") -> set[str]:
    """The names in a document, with those of the objects that they are in."""
    if isinstance(value, list):
        return set().union(*(_paths(it, f"{above}[]") for it in value)) if value else {f"{above}[]"}
    if not isinstance(value, dict):
        return {above}
    return set().union(*(_paths(it, f"{above}.{name}".strip(".")) for name, it in value.items()))
