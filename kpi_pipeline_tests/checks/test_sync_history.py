"""The view `daily_kpi_sync_history`: one line per run, aggregated from its clients."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import RowMapping, text

from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline_tests.checks.support import TODAY, YESTERDAY, Stock, local

START = local(TODAY, 0, 5)


def at(**passed: float) -> datetime:
    return START + timedelta(**passed)


def log(
    stock: Stock,
    workspace: str,
    error: str | None = None,
    *,
    run: str = "night",
    finished_at: datetime = START,
    **changed: Any,
) -> None:
    """Log what a run did for a client, in ten seconds by default."""
    fields: dict[str, Any] = {
        "first_date": YESTERDAY,
        "last_date": TODAY,
        "key_used": "workspace",
        "api_calls": 2,
        "seconds": 10,
        "waiting_seconds": 3,
        "calling_seconds": 1,
        **changed,
    }
    entry = SyncEntry(
        run_id=run, workspace=workspace, error=error, finished_at=finished_at, **fields
    )
    with stock.engine.begin() as connection:
        store_entry(connection, entry)


def history(stock: Stock) -> list[RowMapping]:
    statement = text("SELECT * FROM daily_kpi_sync_history ORDER BY run_id")
    with stock.engine.connect() as connection:
        return list(connection.execute(statement).mappings())


def night(stock: Stock) -> RowMapping:
    (line,) = history(stock)
    return line


@pytest.fixture(autouse=True)
def _three_clients(stock: Stock) -> None:
    stock.clients("Acme", "Birch", "Cedar")


def test_the_history_is_empty_before_the_first_run(stock: Stock) -> None:
    assert history(stock) == []


def test_a_successful_run_is_one_line_for_all_its_clients(stock: Stock) -> None:
    log(stock, "acme", finished_at=at(seconds=10))
    log(stock, "birch", finished_at=at(seconds=25), api_calls=5)
    log(stock, "cedar", finished_at=at(minutes=2))
    assert dict(night(stock)) == {
        "run_id": "night",
        "started_at": START,
        "ended_at": at(minutes=2),
        "duration": timedelta(minutes=2),
        "status": "ok",
        "n_ok": 3,
        "n_failed": 0,
        "first_date": YESTERDAY,
        "last_date": TODAY,
        "api_calls": Decimal(9),
        "error": None,
    }


def test_a_run_started_when_its_first_client_did_even_if_another_ended_first(stock: Stock) -> None:
    log(stock, "acme", finished_at=at(seconds=20), seconds=5)
    log(stock, "birch", finished_at=at(seconds=61.5), seconds=60.25)
    line = night(stock)
    assert line["started_at"] == at(seconds=1.25)
    assert line["ended_at"] == at(seconds=61.5)
    assert line["duration"] == timedelta(seconds=60.25)


def test_one_client_that_failed_makes_it_a_failure_with_its_error(stock: Stock) -> None:
    log(stock, "acme")
    log(stock, "birch", "The key was rejected.")
    log(stock, "cedar")
    line = night(stock)
    assert (line["status"], line["n_ok"], line["n_failed"]) == ("error", 2, 1)
    assert line["error"] == "The key was rejected."


@pytest.mark.parametrize(("failed", "more"), [(2, "(and 1 more)"), (3, "(and 2 more)")])
def test_the_first_of_several_errors_is_shown_with_the_number_of_others(
    stock: Stock, failed: int, more: str
) -> None:
    for place, key in enumerate(["cedar", "birch", "acme"][:failed]):
        log(stock, key, f"Error {place}.", finished_at=at(minutes=place))
    line = night(stock)
    assert (line["n_ok"], line["n_failed"]) == (0, failed)
    assert line["error"] == f"Error 0. {more}"


def test_errors_of_the_same_moment_are_ordered_by_workspace(stock: Stock) -> None:
    log(stock, "birch", "Second.")
    log(stock, "acme", "First.")
    assert night(stock)["error"] == "First. (and 1 more)"


def test_percent_signs_in_an_error_are_left_alone(stock: Stock) -> None:
    log(stock, "acme", "100 %s of %I failed")
    log(stock, "birch", "Other.", finished_at=at(minutes=1))
    assert night(stock)["error"] == "100 %s of %I failed (and 1 more)"


def test_the_period_reaches_from_the_earliest_day_to_the_latest(stock: Stock) -> None:
    log(stock, "acme", first_date=date(2025, 12, 31), last_date=date(2026, 1, 2))
    log(stock, "birch", first_date=date(2026, 1, 1), last_date=date(2026, 1, 5))
    line = night(stock)
    assert (line["first_date"], line["last_date"]) == (date(2025, 12, 31), date(2026, 1, 5))


def test_each_run_has_its_own_line(stock: Stock) -> None:
    log(stock, "acme", "The key was rejected.", run="a")
    log(stock, "acme", run="b", finished_at=at(hours=1))
    assert [(it["run_id"], it["status"], it["ended_at"]) for it in history(stock)] == [
        ("a", "error", START),
        ("b", "ok", at(hours=1)),
    ]


def test_a_client_that_a_run_repeated_counts_once_with_its_last_result(stock: Stock) -> None:
    log(stock, "acme", "The server is busy.")
    log(stock, "acme", finished_at=at(minutes=1))
    line = night(stock)
    assert (line["status"], line["n_ok"], line["n_failed"]) == ("ok", 1, 0)
    assert line["error"] is None


def test_a_run_over_the_change_of_clocks_lasts_as_long_as_it_took(stock: Stock) -> None:
    before, after = local(date(2026, 3, 8), 1, 59), local(date(2026, 3, 8), 3, 1)
    log(stock, "acme", finished_at=before, seconds=60)
    log(stock, "birch", finished_at=after, seconds=60)
    assert night(stock)["duration"] == timedelta(minutes=3)
