import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date, timedelta

from rich.console import Console

from kpi_pipeline.cli.backfill import BackfillReport, command_for_the_rest, print_backfill
from kpi_pipeline.db.metrics import MetricRow
from kpi_pipeline.db.sync_log import SyncEntry
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.services.backfill_check import BackfillCheck, format_ranges
from kpi_pipeline.services.backfills import BackfillTarget
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.services.invented_backfills import (
    FIRST,
    LAST,
    LAUNCHED,
    entry,
    status,
    target,
)

NOTHING: Mapping[str, Mapping[str, Sequence[date]]] = {asset: {} for asset in ASSETS}
DONE = status("COMPLETED_SUCCESS", filled=10, ended_at=LAUNCHED + timedelta(seconds=90.25))


def _row(workspace: str, replies: int | None) -> MetricRow:
    values: dict[str, object] = dict.fromkeys(field.name for field in fields(MetricRow))
    values |= {"workspace": workspace, "display_name": workspace, "positive_replies_mtd": replies}
    return MetricRow(**(values | {"as_of": None if replies is None else LAUNCHED}))  # type: ignore[arg-type]


def _check(
    *entries: SyncEntry,
    of: BackfillTarget | None = None,
    missing: Mapping[str, Mapping[str, Sequence[date]]] = NOTHING,
) -> BackfillCheck:
    return BackfillCheck(of or target("heron", "otter"), entries, missing)


def _printed(report: BackfillReport) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_backfill(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_complete_backfill_shows_clients_time_calls_rows_and_the_best() -> None:
    rows = [_row(f"client-{number:02}", number) for number in range(12)]
    rows.append(_row("nobody-knows", None))
    report = BackfillReport(DONE, _check(entry("heron"), entry("otter")), rows)

    screen = _printed(report)

    assert report.complete
    assert "2 of 2 clients ok in 90.2 s, 6 API calls; 2 of 2 with their own key" in screen
    assert "Best 10 of 12 clients by positive replies, March 2026 to 2026-03-05" in screen
    assert "nobody-knows" not in screen
    assert screen.splitlines()[-1] == (
        "No row is missing: 10 in raw_bison_stats, 10 in kpi_projections, 10 in client_metrics."
    )


def test_a_backfill_that_dagster_calls_failed_is_complete_if_the_retries_succeeded() -> None:
    ended = status("COMPLETED_FAILED", filled=5, failed=5)
    assert BackfillReport(ended, _check(entry("heron"), entry("otter")), []).complete


def test_gaps_are_listed_by_client_and_make_it_incomplete() -> None:
    missing = {
        "raw_bison_stats": {"otter": [FIRST, FIRST + timedelta(days=1)]},
        "kpi_projections": {"otter": [FIRST, FIRST + timedelta(days=1), LAST]},
        "client_metrics": {},
    }
    failed = entry("otter", "otter: GET /api/users was refused (401). Give it a key [of its own].")
    report = BackfillReport(DONE, _check(entry("heron"), failed, missing=missing), [])

    assert not report.complete
    assert _printed(report).splitlines()[3:] == [
        "✗ otter: GET /api/users was refused (401). Give it a key [of its own].",
        "Rows are missing: of 10 in each table there are 8 in raw_bison_stats, "
        "7 in kpi_projections, 10 in client_metrics:",
        "  otter: 2026-03-01 to 2026-03-02, 2026-03-05",
    ]


def test_ten_clients_with_gaps_are_named_and_the_others_counted() -> None:
    names = [f"client-{number:02}" for number in range(13)]
    missing = dict(NOTHING) | {"client_metrics": {name: [FIRST] for name in names}}
    check = _check(*map(entry, names), of=target(*names), missing=missing)
    lines = _printed(BackfillReport(DONE, check, [])).splitlines()
    assert lines[-2:] == ["  client-09: 2026-03-01", "  and 3 more clients"]
    assert len([line for line in lines if line.startswith("  client-")]) == 10


def test_a_client_that_failed_but_has_earlier_rows_is_no_gap_and_not_complete() -> None:
    check = _check(entry("heron"), entry("otter", "otter: its workspace is gone"))
    report = BackfillReport(DONE, check, [])
    assert not report.complete
    assert _printed(report).endswith(
        "10 in client_metrics; the clients named above keep their earlier rows.\n"
    )


def test_clients_that_no_run_reached_are_named() -> None:
    report = BackfillReport(DONE, _check(entry("heron")), [])
    assert not report.complete
    assert "Not reached: otter.\n" in _printed(report)


def test_a_canceled_backfill_is_not_complete_even_if_no_row_is_missing() -> None:
    report = BackfillReport(status("CANCELED"), _check(entry("heron"), entry("otter")), [])
    assert not report.complete
    assert "The backfill was canceled.\n" in _printed(report)


def test_a_backfill_that_dagster_gave_up_shows_its_reason() -> None:
    ended = status("FAILED", error="the definitions [do not] load")
    report = BackfillReport(ended, _check(entry("heron"), entry("otter")), [])
    assert not report.complete
    assert "Dagster gave the backfill up: the definitions [do not] load\n" in _printed(report)


def test_the_command_for_the_rest_names_its_clients() -> None:
    check = _check(entry("heron"), entry("otter", "otter: its workspace is gone"))
    assert command_for_the_rest(check) == "kpi backfill --from 2026-03-01 --to 2026-03-05 -w otter"


def test_the_command_for_the_rest_takes_all_clients_where_it_would_have_to_name_many() -> None:
    check = _check(of=target(*(f"client-{number}" for number in range(11))))
    assert command_for_the_rest(check) == "kpi backfill --from 2026-03-01 --to 2026-03-05"


def test_days_are_shown_as_ranges_of_which_five_are_named() -> None:
    days = days_between(date(2026, 2, 27), date(2026, 3, 2))
    alone = [date(2026, 4, day) for day in range(1, 14, 2)]
    assert format_ranges(days) == "2026-02-27 to 2026-03-02"
    assert format_ranges([*days, *alone]) == (
        "2026-02-27 to 2026-03-02, 2026-04-01, 2026-04-03, 2026-04-05, 2026-04-07 and 3 more"
    )
    assert format_ranges([]) == ""
