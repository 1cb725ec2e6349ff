"""Files that are broken, or were not moved: nothing is lost, and nothing counts twice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.inbox import records
from kpi_pipeline.inbox.files import FilesReport, ingest_files
from kpi_pipeline_tests.inbox.support import (
    AT_REST,
    WRITTEN,
    Agency,
    drop,
    event,
    ingest_folder,
    keys,
    lines,
    tree,
)


def test_control_characters_and_broken_text_in_one_record_do_not_break_the_others(
    one: Agency, folder: Path
) -> None:
    control = json.dumps(event(1, name="x")).replace('"x"', '"a\x00b\x0bc"')
    half = json.dumps(event(2, name="\ud800"))
    broken = json.dumps(event(3)).encode() + b"\xff\n"
    drop(folder / "x.jsonl", lines(control, half).encode() + broken + lines(event(4)).encode())
    assert ingest_folder(one, folder) == FilesReport(files=1, events=4, rejected=1)
    assert one.number("positive_replies_today") == 3
    drop(
        folder / "y.json",
        json.dumps([event(5, name="\x00"), event(6, name="\ud800"), "x", 7]),
    )
    assert ingest_folder(one, folder) == FilesReport(files=1, events=4, rejected=2)
    assert one.number("positive_replies_today") == 5


def test_a_file_that_is_still_written_is_left_alone(one: Agency, folder: Path) -> None:
    drop(folder / "x.jsonl", lines(event(1)))
    assert ingest_folder(one, folder, now=WRITTEN + 1) == FilesReport(skipped=1)
    assert (tree(folder), one.events("id")) == (["x.jsonl"], [])
    assert ingest_folder(one, folder, now=WRITTEN + 2) == FilesReport(files=1, events=1)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_file_that_ends_in_the_middle_is_waited_for_for_a_minute(
    one: Agency, folder: Path, name: str
) -> None:
    whole = lines(event(1), event(2)) if name.endswith("l") else json.dumps([event(1), event(2)])
    drop(folder / name, whole[:-10])
    for now in (AT_REST, WRITTEN + 59):
        assert ingest_folder(one, folder, now) == FilesReport(skipped=1)
        assert (tree(folder), one.events("id")) == ([name], [])
    # Finished in time, it is whole.
    drop(folder / "finished" / name, whole).replace(folder / name)
    rest = ingest_folder(one, folder, now=WRITTEN + 59)
    assert rest == FilesReport(files=1, events=2)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_file_that_was_cut_off_is_ingested_after_a_minute_and_its_end_rejected(
    one: Agency, folder: Path, name: str
) -> None:
    whole = lines(event(1), event(2)) if name.endswith("l") else json.dumps([event(1), event(2)])
    drop(folder / name, whole[:-10])
    report = ingest_folder(one, folder, now=WRITTEN + 61)
    assert (report.files, report.rejected) == (1, 1)
    assert "JSON in UTF-8" in (folder / "rejected/x.rejected.reasons.txt").read_text()
    assert [it for it in one.events("status") if it == "applied"] == (
        ["applied"] if name == "x.jsonl" else []
    )
    assert tree(folder)[0] == f"done/{name}"


def test_an_endless_line_is_rejected_and_read_over(one: Agency, folder: Path) -> None:
    endless = json.dumps(event(2, name="x" * (3 * records.LARGEST_RECORD)))
    drop(folder / "x.jsonl", lines(event(1), endless, event(3)))
    assert ingest_folder(one, folder) == FilesReport(files=1, events=2, rejected=1)
    assert keys(one) == ["lead.id=1", "lead.id=3"]
    reasons = (folder / "rejected/x.rejected.reasons.txt").read_text()
    assert reasons == "line 2: It is longer than 1048576 bytes.\n"
    longest = json.dumps(event(4, name="x")).replace(
        '"x"',
        '"' + "x" * (records.LARGEST_RECORD - len(json.dumps(event(4, name="x"))) - 2) + '"',
    )
    drop(folder / "y.jsonl", lines(longest))
    assert ingest_folder(one, folder) == FilesReport(files=1, events=1)


def test_a_json_file_that_is_too_large_is_rejected_with_the_remedy(
    one: Agency, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LARGEST_JSON", 100)
    drop(folder / "x.json", json.dumps([event(1), event(2)]))
    assert ingest_folder(one, folder) == FilesReport(files=1, rejected=1)
    assert "one event per line" in (folder / "rejected/x.rejected.reasons.txt").read_text()


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_killed_between_storing_and_moving_a_file_is_read_again_and_counts_once(
    one: Agency, folder: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    drop(folder / "x.jsonl", lines(event(1), event(2), "bad"))
    move, moves = Path.replace, iter(range(1, 100))

    def killed(self: Path, target: Path) -> Path:
        if next(moves) == fails_at:
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ingest_folder(one, folder)
    assert (folder / "x.jsonl").exists()
    assert one.number("positive_replies_today") == 2
    assert ingest_folder(one, folder) == FilesReport(files=1, events=3, rejected=1)
    assert one.number("positive_replies_today") == 2
    assert one.events("deliveries") == [2, 2, 2]
    assert tree(folder) == [
        *("done/x.jsonl", "rejected/x.rejected.jsonl", "rejected/x.rejected.reasons.txt")
    ]


def test_a_file_that_another_process_moved_is_no_error(
    one: Agency, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop(folder / "a.jsonl", lines(event(1)))
    drop(folder / "b.jsonl", lines(event(2)))
    move = Path.replace

    def taken(self: Path, target: Path) -> Path:
        path.unlink(missing_ok=True)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", taken)
    assert ingest_folder(one, folder) == FilesReport(files=1, events=1)
    assert one.number("positive_replies_today") == 2, "its events are stored all the same"


def test_a_file_that_can_not_be_read_is_left_alone_and_stops_no_other(
    one: Agency, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(folder / "a.json", json.dumps(event(1)))
    drop(folder / "b.json", json.dumps(event(2)))
    read = Path.read_bytes

    def denied(self: Path) -> bytes:
        if self.name == "a.json":
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert ingest_folder(one, folder) == FilesReport(files=1, events=1, skipped=1)
    assert tree(folder) == ["a.json", "done/b.json"]
    assert "a.json could not be ingested: Permission denied" in caplog.text


def test_while_the_database_is_away_a_file_stays_where_it_is(one: Agency, folder: Path) -> None:
    drop(folder / "x.jsonl", lines(event(1)))
    away = open_engine(make_url("postgresql+psycopg://kpi@127.0.0.1:1/kpi"))
    inbox = replace(one.inbox(), engine=away)
    with pytest.raises(SQLAlchemyError):
        ingest_files(inbox, folder, ["main"], now=lambda: AT_REST)
    away.dispose()
    assert tree(folder) == ["x.jsonl"]
    assert ingest_folder(one, folder) == FilesReport(files=1, events=1)
