import io
from dataclasses import fields
from datetime import UTC, date, datetime

from rich.console import Console

from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.db.metrics import MetricRow
from kpi_pipeline.db.sync_log import SyncEntry
from kpi_pipeline_tests.cli.running import cells

DAY = date(2026, 3, 18)


def _entry(
    workspace: str, error: str | None = None, key_used: str | None = "workspace", calls: int = 3
) -> SyncEntry:
    now = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
    return SyncEntry("a-run", workspace, DAY, DAY, error, key_used, calls, 2.5, 1.5, 0.75, now)


def _row(workspace: str, replies: int | None, **changed: object) -> MetricRow:
    values: dict[str, object] = dict.fromkeys(field.name for field in fields(MetricRow))
    values |= {"workspace": workspace, "display_name": workspace, "positive_replies_mtd": replies}
    return MetricRow(**(values | changed))  # type: ignore[arg-type]


def _report(*entries: SyncEntry, clients: int, rows: tuple[MetricRow, ...] = ()) -> SyncReport:
    return SyncReport(entries=entries, clients=clients, seconds=2.345, date=DAY, rows=rows)


def _printed(report: SyncReport) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_counts_clients_calls_and_keys() -> None:
    report = _report(
        _entry("heron", calls=3),
        _entry("otter", key_used="master", calls=5),
        _entry("lark", key_used=None, calls=0),
        clients=3,
    )
    line = "3 of 3 clients ok in 2.3 s, 8 API calls; 1 of 2 with their own key"
    assert _printed(report).splitlines()[1] == line
    assert report.complete


def test_waiting_time_and_call_time_are_shown_separately() -> None:
    report = _report(_entry("heron"), _entry("otter"), clients=2)
    line = "Summed over concurrent clients: 1.5 s in calls, 3.0 s waiting for a slot"
    assert _printed(report).splitlines()[2:] == [line]


def test_each_client_that_failed_is_named_with_its_reason() -> None:
    report = _report(
        _entry("heron"),
        _entry("otter", "otter: GET /api/users was refused (401). Give it a key [of its own]."),
        _entry("lark", "lark has no facts of 2026-03-02."),
        clients=3,
    )
    first, _, *failures = _printed(report).strip().splitlines()
    assert first.startswith("1 of 3 clients ok")
    assert failures == [
        "✗ otter: GET /api/users was refused (401). Give it a key [of its own].",
        "✗ lark has no facts of 2026-03-02.",
    ]
    assert not report.complete


def test_clients_that_were_never_reached_are_counted_and_make_it_incomplete() -> None:
    report = _report(_entry("heron"), clients=5)
    assert "1 of 5 clients ok" in _printed(report)
    assert "✗ 4 clients were not reached; see the run's log\n" in _printed(report)
    assert not report.complete


def test_a_sync_that_reached_no_client_is_not_complete() -> None:
    assert "0 of 2 clients ok" in _printed(_report(clients=2))
    assert not _report(clients=2).complete


def test_the_best_ten_are_ranked_by_replies_and_then_by_name() -> None:
    rows = [_row(f"client-{number:02}", number % 6) for number in range(12)]
    screen = _printed(_report(clients=12, rows=(*rows, _row("nobody-knows", None))))
    ranked = [line.split("│")[1].strip() for line in screen.splitlines() if line.startswith("│")]
    assert ranked == [f"client-{number:02}" for number in (5, 11, 4, 10, 3, 9, 2, 8, 1, 7)]
    title = "Best 10 of 13 clients by positive replies, March 2026 to 2026-03-18"
    assert title in screen


def test_a_number_that_is_missing_is_a_dash_in_the_ranking() -> None:
    row = _row("[heron]", None, projection_positive_replies_eom=0)
    assert cells(_printed(_report(clients=1, rows=(row,))), "[heron]")[1:] == ["–", "0", "–", "–"]
