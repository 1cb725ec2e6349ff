"""`kpi backfill` where nothing is running: it starts what it needs, and leaves nothing behind."""

import os
import signal
from datetime import date
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.tables import client_metrics, kpi_projections, raw_bison_stats
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, days_ago, ended, kpi_in_a_process, launched, rows_of

pytestmark = [pytest.mark.long, pytest.mark.weekly, pytest.mark.usefixtures("imported")]


def _at_work(state: Path) -> list[list[str]]:
    """The command lines of the processes that work in this state folder."""
    found = []
    for process in psutil.process_iter():
        try:
            works_there = process.environ().get("KPI_STATE_DIR") == str(state)
            if works_there and process.pid != os.getpid():
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(1_200)
def test_what_a_backfill_starts_ends_with_it_and_an_interrupted_one_is_finished_later(
    kpi: Kpi, live_bison: Bison, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    lines = kpi("clients", "list").answer().splitlines()
    keys = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    wanted, dates = [keys[0], keys[7]], days_between(days_ago(12), days_ago(11))
    words = ["--from", str(dates[0]), "--to", str(dates[1]), "-w", wanted[0], "-w", wanted[1]]

    with kpi_in_a_process("backfill", *words) as process:
        backfill_id, _ = launched(process)
        assert _at_work(tmp_path / "state") != []
        process.send_signal(signal.SIGINT)
        left = ended(process, seconds=600)

    assert (left.code, left.out) == (130, "")
    assert (
        "The backfill continues when Dagster runs again: start `kpi up`, or follow it again with "
        f"`kpi backfill --follow {backfill_id}`."
    ) in left.err
    assert _at_work(tmp_path / "state") == []

    with kpi_in_a_process("backfill", "--follow", backfill_id) as process:
        result = ended(process, seconds=600)

    assert result.code == 0, result
    assert "2 of 2 clients ok in" in result.out
    assert "Best 2 of 2 clients by positive replies" in result.out
    assert result.out.splitlines()[-1] == (
        "No row is missing: 4 in raw_bison_stats, 4 in kpi_projections, 4 in client_metrics."
    )
    assert "Dagster is not running; starting it" in result.err
    assert "4 of 4 partitions done, 0 left" in result.err
    tables = rows_of(engine, raw_bison_stats, kpi_projections, client_metrics)
    wanted_rows = {(key, day) for key in wanted for day in dates}
    for name in ("kpi_projections", "client_metrics"):
        assert {(row["workspace"], row["metric_date"]) for row in tables[name]} == wanted_rows
    facts: set[tuple[str, date]] = {
        (row["workspace"], row["date"]) for row in tables["raw_bison_stats"]
    }
    assert facts >= wanted_rows
    assert _at_work(tmp_path / "state") == []
