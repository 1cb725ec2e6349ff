"""What `kpi backfill` rejects before it starts anything."""

from pathlib import Path

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.cli.running import Kpi, days_ago, written

SOME_DAYS = ("--from", str(days_ago(9)), "--to", str(days_ago(3)))


@pytest.fixture
def stocked(kpi: Kpi, configured: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client, and one that is not active any more; no server is up."""
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    lines = ("main,1,Heron Tide,yes", "main,2,Lark Mill,no")
    file = written(tmp_path / "c.csv", "instance,bison_workspace_id,name,active", *lines)
    kpi("clients", "import", file).answer()


@pytest.mark.parametrize("words", [(), ("--from", "2026-03-01"), ("--to", "2026-03-01")])
def test_both_dates_are_required(kpi: Kpi, words: tuple[str, ...]) -> None:
    assert kpi("backfill", *words).error() == (
        "Give the dates with --from and --to, as in `kpi backfill --from 2026-01-01 "
        "--to 2026-01-31`, or the id of a backfill with --follow."
    )


@pytest.mark.parametrize("words", [("--to", "2026-03-01"), ("-w", "heron-tide")])
def test_a_followed_backfill_takes_no_other_option(kpi: Kpi, words: tuple[str, ...]) -> None:
    error = kpi("backfill", "--follow", "abcdefgh", *words).error()
    assert error == "--follow takes the id of a backfill, and no other option beside it."


def test_a_date_in_another_form_is_a_usage_error(kpi: Kpi) -> None:
    result = kpi("backfill", "--from", "1.3.2026", "--to", "2026-03-02")
    assert (result.code, result.out) == (2, "")
    assert "--from" in result.err


@pytest.mark.usefixtures("stocked")
def test_dates_in_the_wrong_order_are_refused(kpi: Kpi) -> None:
    error = kpi("backfill", "--from", "2026-03-02", "--to", "2026-03-01").error()
    assert error == "--from 2026-03-02 is after --to 2026-03-01. Exchange the two."


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize(("first", "last", "named"), [(31, 5, 31), (5, -1, -1)])
def test_dates_outside_the_partitions_are_rejected_with_their_bounds(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, first: int, last: int, named: int
) -> None:
    monkeypatch.setenv("KPI_FIRST_DATE", str(days_ago(30)))
    dates = ("--from", str(days_ago(first)), "--to", str(days_ago(last)))
    assert kpi("backfill", *dates).error() == (
        f"{days_ago(named)} is outside the dates from {days_ago(30)} (KPI_FIRST_DATE) to today, "
        f"{days_ago(0)}. Choose some of those."
    )


@pytest.mark.usefixtures("stocked")
def test_unknown_and_inactive_clients_are_named(kpi: Kpi) -> None:
    error = kpi("backfill", *SOME_DAYS, "-w", "heron-tide", "-w", "nobody").error()
    assert error == "There is no client nobody. `kpi clients list` shows the workspaces."
    error = kpi("backfill", *SOME_DAYS, "-w", "lark-mill").error()
    assert error.startswith("Not active: lark-mill.")


@pytest.mark.usefixtures("configured")
def test_without_clients_there_is_nothing_to_fill(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    error = kpi("backfill", *SOME_DAYS).error()
    assert error.startswith("There are no active clients.")


@pytest.mark.usefixtures("configured")
def test_without_an_email_bison_nothing_can_be_filled(kpi: Kpi) -> None:
    error = kpi("backfill", *SOME_DAYS).error()
    assert error.startswith("No Email Bison is configured: set KPI_BISON_INSTANCES")


@pytest.mark.usefixtures("configured")
def test_an_unknown_backfill_is_rejected_before_anything_is_started(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    error = kpi("backfill", "--follow", "abcdefgh").error()
    assert error.startswith("Dagster knows no backfill abcdefgh. Check the id:")
