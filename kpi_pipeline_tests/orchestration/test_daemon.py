"""When `kpi up`'s daemon evaluates backfills, and into which runs it cuts them."""

from kpi_pipeline.orchestration.runtime.daemon import AdaptivePace, ranges_of

ORDER = {
    "date": ["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"],
    "workspace": ["acorn", "zebra", "mango"],
}


def test_a_backfill_is_cut_into_ranges_from_one_client_and_date_to_another() -> None:
    keys = [f"{day}|{client}" for day in ORDER["date"][1:] for client in ("mango", "zebra")]
    assert ranges_of(keys, ORDER) == [("2026-03-02|zebra", "2026-03-04|mango")]
    keys.append("2026-03-01|acorn")
    assert ranges_of(keys, ORDER) == [
        ("2026-03-01|acorn", "2026-03-01|acorn"),
        ("2026-03-02|zebra", "2026-03-04|mango"),
    ]


def test_another_grid_and_a_client_that_is_no_partition_any_more_are_left_to_dagster() -> None:
    assert ranges_of(["a|b"], {"one": ["a"], "two": ["b"]}) is None
    assert ranges_of(["2026-03-01|gone"], ORDER) is None
    assert ranges_of(["2026-02-01|acorn"], ORDER) is None


def pause_after(pace: AdaptivePace, *, age: float, seconds: float) -> float:
    """The whole seconds, on a daemon that evaluates each second, until the next evaluation."""
    pace.evaluated("it", age, 1_000.0, 1_000.0 + seconds)
    ended = 1_000.0 + seconds
    return next(it for it in range(1, 60) if pace.is_due("it", ended + it))


def test_a_new_backfill_is_due_at_once_and_a_young_one_every_second() -> None:
    pace = AdaptivePace()
    assert pace.is_due("it", 1_000.0)
    assert pause_after(pace, age=2.0, seconds=3.0) == 1


def test_an_older_backfill_waits_five_times_its_evaluation_within_bounds() -> None:
    pace = AdaptivePace()
    assert pause_after(pace, age=60.0, seconds=0.01) == 1
    assert pause_after(pace, age=60.0, seconds=0.8) == 4
    assert pause_after(pace, age=60.0, seconds=30.0) == 10


def test_a_backfill_does_not_wait_for_another_ones_evaluation() -> None:
    pace = AdaptivePace()
    pace.evaluated("large", 60.0, 1_000.0, 1_002.0)
    assert not pace.is_due("large", 1_003.0)
    assert pace.is_due("small", 1_003.0)


def test_reading_the_backfills_is_repeated_each_second_or_later_if_that_takes_long() -> None:
    pace = AdaptivePace()
    assert [pace.pause(it) for it in (0.0, 0.02, 0.5, 60.0)] == [1.0, 1.0, 2.5, 3.0]
