"""`kpi recompute`: stored rows computed again, and deleted ones made again, without a call."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text

from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.db.tables import client_metrics, kpi_projections
from kpi_pipeline_tests.checks import rows
from kpi_pipeline_tests.cli.running import Kpi, address, rows_of

DAYS = 46


@pytest.fixture(autouse=True)
def _agency(database: URL, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acme and Birch have rows of each day from 1 February to 18 March."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_SECRET_KEY", new_secret_key())
    monkeypatch.setenv("KPI_TIMEZONE", "America/Chicago")
    with engine.begin() as connection:
        rows.agency(connection)


def sql(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def stored(engine: Engine) -> Mapping[str, Any]:
    """All rows of both tables, without when and by what they were written."""
    return {
        name: [
            {column: row[column] for column in row.keys() - {"updated_at", "source"}}
            for row in found
        ]
        for name, found in rows_of(engine, client_metrics, kpi_projections).items()
    }


def sources(engine: Engine) -> dict[str, set[date]]:
    """The dates of Acme's rows, by what computed them last."""
    found: dict[str, set[date]] = {}
    for row in rows_of(engine, client_metrics)["client_metrics"]:
        if row["workspace"] == "acme":
            found.setdefault(row["source"], set()).add(row["metric_date"])
    return found


def test_where_nothing_was_damaged_every_row_is_computed_again_and_none_changes(
    kpi: Kpi, engine: Engine
) -> None:
    before = stored(engine)
    assert kpi("recompute").answer() == f"0 of {2 * DAYS} rows of 2 clients changed.\n"
    assert stored(engine) == before
    assert set(sources(engine)) == {"recompute"}


def test_changed_rows_are_counted_by_client(kpi: Kpi, engine: Engine) -> None:
    before = stored(engine)
    sql(engine, "UPDATE client_metrics SET bounced_mtd = -1 WHERE metric_date >= '2026-03-16'")
    sql(engine, "UPDATE kpi_projections SET bounced_mtd = -1 WHERE workspace = 'birch'")
    sql(engine, "DELETE FROM client_metrics WHERE workspace = 'birch' AND bounced_mtd >= 0")
    # Rows before the first that is left are not made again.
    sql(
        engine, "DELETE FROM kpi_projections WHERE workspace = 'birch' AND metric_date < '2026-2-3'"
    )
    assert kpi("recompute").answer().splitlines() == [
        "acme: 3 rows changed",
        f"birch: {DAYS - 2} rows changed",
        f"{DAYS + 1} of {2 * DAYS - 2} rows of 2 clients changed.",
    ]
    after = stored(engine)
    assert [row for row in before["client_metrics"] if row["workspace"] == "acme"] == [
        row for row in after["client_metrics"] if row["workspace"] == "acme"
    ]
    assert len(after["client_metrics"]) == 2 * DAYS - 2


def test_rows_that_were_deleted_by_hand_are_made_again(kpi: Kpi, engine: Engine) -> None:
    before = stored(engine)
    dates = "('2026-02-03', '2026-02-28', '2026-03-17')"
    for table in ("client_metrics", "kpi_projections"):
        sql(engine, f"DELETE FROM {table} WHERE metric_date IN {dates}")
    sql(engine, "DELETE FROM kpi_projections WHERE metric_date = '2026-03-01'")
    sql(engine, "DELETE FROM client_metrics WHERE metric_date = '2026-03-02'")
    assert kpi("recompute", "-w", "acme").answer().endswith("5 of 46 rows of 1 client changed.\n")
    assert kpi("recompute").answer().endswith("5 of 92 rows of 2 clients changed.\n")
    assert stored(engine) == before


def test_a_deleted_row_without_facts_of_its_day_stays_away(kpi: Kpi, engine: Engine) -> None:
    for table in ("client_metrics", "kpi_projections"):
        sql(engine, f"DELETE FROM {table} WHERE metric_date = '2026-03-05'")
    sql(engine, "DELETE FROM raw_bison_stats WHERE date = '2026-03-05' AND workspace = 'acme'")
    kpi("recompute").answer()
    left = [
        row["workspace"]
        for row in rows_of(engine, client_metrics)["client_metrics"]
        if row["metric_date"] == date(2026, 3, 5)
    ]
    assert left == ["birch"]


def test_dates_choose_the_rows_in_which_their_inputs_show(kpi: Kpi, engine: Engine) -> None:
    answer = kpi("recompute", "-w", "acme", "--from", "2026-02-27").answer()
    assert answer == "0 of 20 rows of 1 client changed.\n"
    found = sources(engine)
    assert min(found["recompute"]) == date(2026, 2, 27)
    assert max(found["sync"]) == date(2026, 2, 26)
    # February's days show in March's rows, as "last month".
    assert kpi("recompute", "--to", "2026-02-02").answer().startswith("0 of 92 rows")


def test_rows_of_inactive_clients_are_computed_again_as_well(kpi: Kpi, engine: Engine) -> None:
    sql(engine, "UPDATE clients SET active = false WHERE workspace = 'acme'")
    sql(engine, "UPDATE client_metrics SET bounced_mtd = -1 WHERE metric_date = '2026-03-16'")
    assert kpi("recompute", "-w", "acme").answer().startswith("acme: 1 row changed")
    assert kpi("recompute").answer().startswith("birch: 1 row changed")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["-w", "acme", "-w", "cedar"],
            "There is no client cedar. `kpi clients list` shows the workspaces.",
        ),
        (
            ["--from", "2026-03-02", "--to", "2026-03-01"],
            "--from 2026-03-02 is after --to 2026-03-01.",
        ),
    ],
)
def test_what_can_not_be_recomputed_is_an_error_and_changes_nothing(
    kpi: Kpi, engine: Engine, words: list[str], error: str
) -> None:
    assert kpi("recompute", *words).error() == error
    assert set(sources(engine)) == {"sync"}


def test_without_clients_there_is_nothing_to_compute(kpi: Kpi, engine: Engine) -> None:
    sql(engine, "TRUNCATE clients CASCADE")
    assert kpi("recompute").answer() == "0 of 0 rows of 0 clients changed.\n"
