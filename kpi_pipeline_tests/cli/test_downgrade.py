"""`kpi db downgrade`: back to the tables of an earlier version, and forth again."""

import re

import pytest
from sqlalchemy import URL

from kpi_pipeline.db.migrate import revisions
from kpi_pipeline.db.rollback import revision_of
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.running_dagster import one_daemon
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.cli.running import Kpi

CSV = "instance,bison_workspace_id,name\nmain,101,Harbor Analytics\n"


def revision(database: URL) -> str | None:
    engine = open_engine(database)
    try:
        return revision_of(engine)
    finally:
        engine.dispose()


def test_a_downgrade_says_first_what_it_deletes_and_changes_nothing(
    kpi: Kpi, configured: URL
) -> None:
    error = kpi("db", "downgrade", "0018").error()
    assert re.search(
        r"Nothing was changed\. With --yes, .*\n.*  0020: .*\n  0019: ", error, re.DOTALL
    )
    assert "0018:" not in error
    assert revision(configured) == revisions().head


def test_after_a_downgrade_and_an_upgrade_the_clients_are_there_as_before(
    kpi: Kpi,
    configured: URL,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main https://bison.example")
    file = tmp_path_factory.mktemp("csv") / "clients.csv"
    file.write_text(CSV)
    kpi("clients", "import", str(file)).answer()
    before = kpi("clients", "list").answer()

    assert "at revision 0018" in kpi("db", "downgrade", "0018", "--yes").answer()
    assert revision(configured) == "0018"
    assert "Run `kpi db upgrade`" in kpi("clients", "list").error()

    kpi("db", "upgrade").answer()
    assert kpi("clients", "list").answer() == before


def test_a_downgrade_to_a_revision_that_nobody_knows_is_an_error(kpi: Kpi, configured: URL) -> None:
    error = kpi("db", "downgrade", "9999", "--yes").error()
    assert error.startswith("This version of the code knows no revision 9999 of the KPI tables. ")
    assert revision(configured) == revisions().head


def test_no_downgrade_happens_under_a_running_daemon(kpi: Kpi, configured: URL) -> None:
    with (
        ready_databases(load_settings()) as settings,
        one_daemon(settings, "kpi up", lambda _: None),
    ):
        done = kpi("db", "downgrade", "0018", "--yes")
    assert done.code == 1
    assert "Error: Dagster already works on this database: `kpi up`" in done.err
    assert revision(configured) == revisions().head
