import re

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.tables import client_metrics, raw_bison_stats, sync_log
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, cells, days_ago, rows_of

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("imported")]

REPORT = re.compile(
    r"(\d+) of (\d+) clients? ok in \d+\.\d s, (\d+) API calls?; (\d+) of (\d+) with their own key"
)


def _counted(screen: str) -> tuple[int, ...]:
    """The numbers of the one report on the screen."""
    (found,) = REPORT.findall(screen)
    return tuple(int(number) for number in found)


def _keys(listed: str) -> list[str]:
    """The workspaces on the screen of `kpi clients list`, in the order of the grid."""
    return [line.split("│")[1].strip() for line in listed.splitlines() if line.startswith("│")]


@pytest.mark.long
def test_a_sync_without_options_fills_the_last_week_and_today_for_every_client(
    kpi: Kpi, live_bison: Bison, engine: Engine
) -> None:
    live_bison.http.delete("/sandbox/calls")
    result = kpi("sync")
    own = len(live_bison.with_key())
    calls = len(live_bison.calls())
    assert _counted(result.answer()) == (26, 26, calls, own, 26)
    assert "26/26 clients" in result.err
    found = {
        (row["workspace"], row["metric_date"])
        for row in rows_of(engine, client_metrics)["client_metrics"]
    }
    dates = days_between(days_ago(7), days_ago(0))
    assert found == {(key, day) for key in _keys(kpi("clients", "list").answer()) for day in dates}


def test_a_sync_of_one_date_and_client_writes_that_row_with_the_numbers_of_email_bison(
    kpi: Kpi, live_bison: Bison, engine: Engine
) -> None:
    day = days_ago(40)
    own = live_bison.with_key()[0]
    series = live_bison.series(day, day, key=own["api_key"])
    listed = kpi("clients", "list").answer()
    key = next(it for it in _keys(listed) if cells(listed, it)[3] == own["bison_workspace_id"])
    screen = kpi("sync", "--date", day.isoformat(), "--workspace", key).answer()
    assert _counted(screen)[:2] == (1, 1)
    (row,) = rows_of(engine, client_metrics)["client_metrics"]
    assert (row["workspace"], row["metric_date"], row["source"]) == (key, day, "sync")
    assert row["emails_sent_today"] == series["Sent"][0] > 0
    assert row["positive_replies_today"] == series["Interested"][0]
    title = f"Best 1 of 1 client by positive replies, {day:%B %Y} to {day}"
    assert title in screen
    assert cells(screen, row["display_name"])[1] == f"{row['positive_replies_mtd']:,}"


def test_clients_that_are_not_adjacent_take_two_runs_and_one_report(
    kpi: Kpi, engine: Engine
) -> None:
    keys = _keys(kpi("clients", "list").answer())
    wanted = [keys[5], keys[0], keys[1], keys[0]]
    words = [word for key in wanted for word in ("-w", key)]
    screen = kpi("sync", "--date", days_ago(1).isoformat(), *words).answer()
    assert _counted(screen)[:2] == (3, 3)
    entries = rows_of(engine, sync_log)["sync_log"]
    run_of = {entry["workspace"]: entry["run_id"] for entry in entries}
    assert len(entries) == 3
    assert run_of.keys() == set(wanted)
    assert run_of[keys[0]] == run_of[keys[1]] != run_of[keys[5]]


def test_a_second_sync_changes_no_number_of_a_closed_day(kpi: Kpi, engine: Engine) -> None:
    words = (
        "sync",
        "--date",
        days_ago(40).isoformat(),
        "--workspace",
        _keys(kpi("clients", "list").answer())[0],
    )
    kpi(*words).answer()
    counts = ("workspace", "metric_date", "emails_sent_mtd", "positive_replies_mtd")
    before = [
        {name: row[name] for name in counts}
        for row in rows_of(engine, client_metrics)["client_metrics"]
    ]
    kpi(*words).answer()
    after = rows_of(engine, client_metrics)["client_metrics"]
    assert [{name: row[name] for name in counts} for row in after] == before


def test_a_grid_that_began_this_week_is_filled_from_its_first_date(
    kpi: Kpi, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_FIRST_DATE", days_ago(2).isoformat())
    kpi("sync", "--workspace", _keys(kpi("clients", "list").answer())[0]).answer()
    rows = rows_of(engine, client_metrics)["client_metrics"]
    assert [row["metric_date"] for row in rows] == days_between(days_ago(2), days_ago(0))
    # Facts reach further back: the windows of the first date are worked out from them.
    facts = rows_of(engine, raw_bison_stats)["raw_bison_stats"]
    assert min(row["date"] for row in facts) <= days_ago(31)
