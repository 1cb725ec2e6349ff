import io

import pytest
from rich.console import Console

from kpi_pipeline.cli.progress import BackfillProgress, Pace, progress_line
from kpi_pipeline_tests.services.invented_backfills import Clock, status


def test_the_line_shows_what_is_done_failed_and_left() -> None:
    standing = status(targeted=1560, filled=1040, failed=20)
    assert progress_line(standing, 1234, 150) == (
        "1,040 of 1,560 partitions done, 20 failed, 500 left; 1,234 API calls; about 2 min left"
    )


def test_the_line_has_no_failures_where_there_are_none_and_no_time_at_the_end() -> None:
    assert progress_line(status(filled=10), 8, 0) == "10 of 10 partitions done, 0 left; 8 API calls"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "time left unknown"),
        (59, "less than a minute left"),
        (60, "about 1 min left"),
        (3570, "about 1 h 0 min left"),
        (9000, "about 2 h 30 min left"),
    ],
)
def test_the_time_left_is_shown_in_words(seconds: float | None, words: str) -> None:
    assert progress_line(status(), 0, seconds).endswith(f"; {words}")


def test_the_time_left_follows_from_what_was_done_since_the_first_status() -> None:
    clock = Clock()
    pace = Pace(clock.slept)
    # Joined late: how the first four were done in what time is not known.
    assert pace.seconds_left(status(filled=4)) is None
    clock.sleep(20)
    assert pace.seconds_left(status(filled=4)) is None
    clock.sleep(20)
    assert pace.seconds_left(status(filled=5, failed=1)) == pytest.approx(80)
    clock.sleep(20)
    assert pace.seconds_left(status(filled=9, failed=1)) == 0


def test_without_a_terminal_there_is_a_line_at_once_and_then_twice_a_minute() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=200)
    with BackfillProgress(console, clock.slept) as progress:
        for filled in range(9):
            progress.show(status(filled=filled), filled)
            clock.sleep(10)
        progress.show(status("COMPLETED_SUCCESS", filled=10), 10)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "3", "6", "10"]


def test_without_a_terminal_the_same_line_is_not_repeated() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=200)
    with BackfillProgress(console, clock.slept) as progress:
        for _ in range(10):
            progress.show(status(), 0)
            clock.sleep(60)
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) == 1


def test_a_terminal_shows_a_bar_with_the_line() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with BackfillProgress(console) as progress:
        progress.show(status(filled=4), 7)
    assert isinstance(console.file, io.StringIO)
    assert "4 of 10 partitions done, 6 left; 7 API calls" in console.file.getvalue()
    assert "━" in console.file.getvalue()
