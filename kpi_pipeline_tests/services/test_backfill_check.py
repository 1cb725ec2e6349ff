from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from sqlalchemy import Engine, Table, delete, event, update

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.db.tables import client_metrics, clients, kpi_projections, raw_bison_stats
from kpi_pipeline.services.backfill_check import (
    BackfillCheck,
    check_backfill,
    of_active_clients,
)
from kpi_pipeline.services.backfills import BackfillTarget
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts
from kpi_pipeline_tests.services.invented_backfills import (
    FIRST,
    LAST,
    LAUNCHED,
    entry,
    target,
)

MIDDLE = FIRST + timedelta(days=2)
RUNS = ["a-run", "second-run", "third-run"]


@pytest.fixture
def filled(engine: Engine, vault: Vault, app: AppContext) -> None:
    """Two clients with a row of each of the five days in each table."""
    imported(engine, vault, record(1, "Heron"), record(2, "Otter"))
    dates = target("heron").dates["heron"]
    with engine.begin() as connection:
        for workspace in ("heron", "otter"):
            stock_facts(connection, workspace, date(2026, 1, 1), LAST)
            write_rows(connection, {workspace: dates}, app.timezone, "sync")


def _checked(
    engine: Engine, *entries: SyncEntry, of: BackfillTarget | None = None
) -> BackfillCheck:
    with engine.begin() as connection:
        for it in entries:
            store_entry(connection, it)
        return check_backfill(connection, of or target("heron", "otter"), RUNS)


def _error(check: BackfillCheck, workspace: str) -> str | None:
    (found,) = [it.error for it in check.entries if it.workspace == workspace]
    return found


@pytest.mark.usefixtures("filled")
def test_nothing_is_unfinished_when_each_client_succeeded_and_has_its_rows(
    engine: Engine,
) -> None:
    check = _checked(engine, entry("heron"), entry("otter"))
    assert (check.gaps, check.unfinished, check.unreached) == ({}, [], [])
    assert [check.rows(table) for table in ASSETS] == [10, 10, 10]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("table", [raw_bison_stats, kpi_projections, client_metrics])
def test_a_row_that_is_missing_in_any_of_the_tables_is_a_gap(engine: Engine, table: Table) -> None:
    day = table.c.date if table is raw_bison_stats else table.c.metric_date
    with engine.begin() as connection:
        of_otter = delete(table).where(table.c.workspace == "otter")
        connection.execute(of_otter.where(day.in_([FIRST, MIDDLE])))
    check = _checked(engine, entry("heron"), entry("otter"))
    assert check.gaps == {"otter": [FIRST, MIDDLE]}
    assert check.unfinished == ["otter"]
    assert {it: check.rows(it) for it in ASSETS} == dict.fromkeys(ASSETS, 10) | {table.name: 8}


@pytest.mark.usefixtures("filled")
def test_a_row_of_another_kind_does_not_fill_a_gap(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.workspace == "heron", client_metrics.c.metric_date == FIRST)
            .values(metric_type="weekly")
        )
    assert _checked(engine, entry("heron"), entry("otter")).gaps == {"heron": [FIRST]}


@pytest.mark.usefixtures("filled")
def test_a_client_with_its_own_days_is_checked_for_those(engine: Engine) -> None:
    of = BackfillTarget({"heron": [FIRST], "otter": [MIDDLE, LAST + timedelta(days=1)]})
    check = _checked(engine, entry("heron"), entry("otter"), of=of)
    assert check.gaps == {"otter": [LAST + timedelta(days=1)]}
    assert check.rows("client_metrics") == 2


@pytest.mark.usefixtures("filled")
def test_a_client_that_failed_keeps_its_reason_though_its_rows_are_there(engine: Engine) -> None:
    check = _checked(engine, entry("heron"), entry("otter", "otter: its key was rejected"))
    assert check.gaps == {}
    assert check.unfinished == ["otter"]
    assert _error(check, "otter") == "otter: its key was rejected"


@pytest.mark.usefixtures("filled")
def test_a_failure_that_a_later_run_corrected_does_not_count(engine: Engine) -> None:
    check = _checked(
        engine,
        entry("heron"),
        entry("otter", "otter: a gateway did not answer", api_calls=5, seconds=4.0),
        entry("otter", run_id="second-run", finished_at=LAUNCHED + timedelta(seconds=30)),
    )
    assert check.unfinished == []
    (merged,) = [it for it in check.entries if it.workspace == "otter"]
    assert (merged.error, merged.api_calls, merged.seconds) == (None, 8, 6.5)


@pytest.mark.usefixtures("filled")
def test_a_failure_of_some_days_is_not_corrected_by_a_success_on_others(engine: Engine) -> None:
    check = _checked(
        engine,
        entry("heron"),
        entry("otter", "otter: a gateway did not answer", last_date=MIDDLE),
        entry(
            "otter",
            run_id="second-run",
            first_date=MIDDLE + timedelta(days=1),
            finished_at=LAUNCHED + timedelta(seconds=30),
        ),
    )
    assert check.unfinished == ["otter"]
    assert _error(check, "otter") == "otter: a gateway did not answer"


@pytest.mark.usefixtures("filled")
def test_the_latest_of_two_reasons_is_shown(engine: Engine) -> None:
    later = LAUNCHED + timedelta(seconds=30)
    check = _checked(
        engine,
        entry("heron"),
        entry("otter", "otter: its key was rejected", run_id="second-run", finished_at=later),
        entry("otter", "otter: a gateway did not answer"),
    )
    assert _error(check, "otter") == "otter: its key was rejected"


@pytest.mark.usefixtures("filled")
def test_days_that_no_run_finished_are_named(engine: Engine) -> None:
    check = _checked(engine, entry("heron", last_date=MIDDLE), entry("otter"))
    assert check.unfinished == ["heron"]
    assert _error(check, "heron") == (
        "heron: no run finished 2026-03-04 to 2026-03-05; see the runs' logs"
    )


@pytest.mark.usefixtures("filled")
def test_a_client_that_no_run_finished_is_unreached(engine: Engine) -> None:
    # What other runs did for it is not this backfill's work.
    check = _checked(engine, entry("heron"), entry("otter", run_id="a-nightly-run"))
    assert check.unreached == ["otter"]
    assert check.unfinished == ["otter"]


@pytest.mark.usefixtures("filled")
def test_a_client_that_was_deactivated_meanwhile_is_not_waited_for(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(clients).where(clients.c.workspace == "otter").values(active=False)
        )
        assert of_active_clients(connection, target("heron", "otter")) == target("heron")


@pytest.mark.usefixtures("filled")
def test_the_check_takes_one_query_for_each_table_and_one_for_the_log(engine: Engine) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_: Sequence[object]) -> None:
        statements.append(text)

    event.listen(engine, "before_cursor_execute", note)
    try:
        _checked(engine)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(statements) == 4
