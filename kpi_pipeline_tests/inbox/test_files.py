"""Files that are dropped: read, moved, and rejected in part; nothing is lost or counts twice."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.inbox import records
from kpi_pipeline.inbox.files import FilesReport, ingest_files
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.inbox.support import URLS, Clients

MAIN = URLS["main"]
# The clock of the files.
WRITTEN = 1_000_000.0
AT_REST = WRITTEN + 3
REASONS = "rejected/x.rejected.reasons.txt"
REJECTED = ["done/x.jsonl", "rejected/x.rejected.jsonl", REASONS]


@pytest.fixture
def one(clients: Clients) -> Clients:
    """The clients of a single instance."""
    clients.urls = {"main": MAIN}
    return clients


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files of events are dropped; it does not exist yet."""
    return tmp_path / "events"


def event(number: int, **changed: Any) -> dict[str, Any]:
    data = {"lead": {"id": number}, "campaign": {"id": 3}}
    return content("LEAD_INTERESTED", data, **changed)


def drop(path: Path, text: str | bytes) -> Path:
    """Write a file of that content at WRITTEN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def lines(*contents: Mapping[str, Any] | str) -> str:
    return "".join((it if isinstance(it, str) else json.dumps(it)) + "\n" for it in contents)


def ingest_folder(clients: Clients, folder: Path, now: float = AT_REST) -> FilesReport:
    return ingest_files(clients.inbox(), folder, sorted(clients.urls), now=lambda: now)


def tree(folder: Path) -> list[str]:
    """The relative paths of all files below."""
    return sorted(str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file())


def stored_leads(clients: Clients) -> list[str]:
    return [key.rsplit(" ", 2)[-2] for key in clients.events("idempotency_key")]


@pytest.mark.parametrize(
    ("name", "text", "leads"),
    [
        ("one.json", json.dumps(event(1)), [1]),
        ("pretty.json", json.dumps(event(1), indent=4), [1]),
        ("list.json", json.dumps([event(1), event(2)]), [1, 2]),
        ("empty.json", "[]", []),
        ("lines.jsonl", lines(event(1), event(2), event(3)), [1, 2, 3]),
        ("capital.NDJSON", lines(event(1), "", "  ", event(2)), [1, 2]),
        ("windows.ndjson", lines(event(1), event(2)).replace("\n", "\r\n"), [1, 2]),
        ("open-end.jsonl", lines(event(1), event(2)).rstrip("\n"), [1, 2]),
        ("nothing.jsonl", "", []),
        ("mark.json", "\ufeff" + json.dumps([event(1), event(2)]), [1, 2]),
        ("mark.jsonl", "\ufeff" + lines(event(1), event(2)), [1, 2]),
        ("feed.json", json.dumps([{"id": 7, "uuid": "x", "payload": event(1)}, event(2)]), [1, 2]),
    ],
)
def test_a_file_of_one_event_a_list_or_one_per_line_is_ingested_and_moved(
    one: Clients, folder: Path, name: str, text: str, leads: Sequence[int]
) -> None:
    drop(folder / name, text)
    assert ingest_folder(one, folder) == FilesReport(files=1, events=len(leads))
    assert stored_leads(one) == [f"lead.id={number}" for number in leads]
    assert set(one.events("source", "status")) <= {("file", "applied")}
    assert tree(folder) == [f"done/{name}"]
    assert ingest_folder(one, folder) == FilesReport()


def test_other_files_and_folders_are_ignored(one: Clients, folder: Path) -> None:
    assert ingest_folder(one, folder) == FilesReport(), "the folder need not exist"
    for name in ("notes.txt", ".hidden.json", "elsewhere/x.json", "done/x.json", "x.json.part"):
        drop(folder / name, json.dumps(event(1)))
    (folder / "folder.json").mkdir()
    before = tree(folder)
    assert ingest_folder(one, folder) == FilesReport()
    assert tree(folder) == before


def test_the_subfolder_or_the_address_names_the_instance(clients: Clients, folder: Path) -> None:
    imported(clients.engine, clients.vault, record(101, "Emea Harbor", instance="emea"))
    drop(folder / "emea" / "by-folder.jsonl", lines(event(1)))
    by_address = [
        event(2, instance_url=f"{MAIN}/"),
        event(3, instance_url="https://emea.example"),
    ]
    drop(folder / "by-address.jsonl", lines(*by_address))
    report = ingest_folder(clients, folder)
    assert report == FilesReport(files=2, events=3)
    assert {(*it,) for it in clients.events("instance", "workspace")} == {
        ("main", "harbor"),
        ("emea", "emea-harbor"),
    }
    assert sorted(clients.events("instance")) == ["emea", "emea", "main"]
    assert tree(folder) == ["done/by-address.jsonl", "done/by-folder.jsonl"]


def test_among_several_instances_a_record_that_names_none_is_rejected(
    clients: Clients, folder: Path
) -> None:
    good = event(2, instance_url=MAIN)
    drop(
        folder / "x.jsonl",
        lines(event(1), good, event(3, instance_url="https://else.example")),
    )
    assert ingest_folder(clients, folder) == FilesReport(files=1, events=1, rejected=2)
    reasons = (folder / REASONS).read_text().splitlines()
    assert [it.split(":")[0] for it in reasons] == ["line 1", "line 3"]
    assert "subfolder with the name of its instance" in reasons[0]
    # What was rejected can be dropped again, in the place that it belongs to.
    again = (folder / "rejected/x.rejected.jsonl").read_bytes()
    drop(folder / "main" / "x.jsonl", again.splitlines()[0] + b"\n")
    assert ingest_folder(clients, folder) == FilesReport(files=1, events=1)


def test_a_record_of_another_instance_than_its_folder_is_rejected(
    clients: Clients, folder: Path
) -> None:
    drop(folder / "main" / "x.json", json.dumps(event(1, instance_url="https://emea.example")))
    assert ingest_folder(clients, folder) == FilesReport(files=1, events=1, rejected=1)
    assert "is an event of instance emea" in (folder / REASONS).read_text()
    assert clients.events("status") == ["invalid"]


def test_faulty_records_are_set_aside_with_their_reasons_and_stop_none_of_the_good_ones(
    one: Clients, folder: Path
) -> None:
    faulty = ['{"event": hush}', json.dumps(content("lead_replied", {"hush": 1})), "[]"]
    drop(
        folder / "x.jsonl",
        lines(event(1), faulty[0], event(2), faulty[1], faulty[2], event(3)),
    )
    assert ingest_folder(one, folder) == FilesReport(files=1, events=6, rejected=3)
    assert one.number("positive_replies_today") == 3
    assert (folder / "rejected/x.rejected.jsonl").read_text() == lines(*faulty)
    reasons = (folder / REASONS).read_text()
    assert [it.split(":")[0] for it in reasons.splitlines()] == ["line 2", "line 4", "line 5"]
    assert "hush" not in reasons
    assert "data.reply.id" in reasons
    assert tree(folder) == REJECTED


def test_the_same_file_twice_changes_nothing_and_both_are_kept(one: Clients, folder: Path) -> None:
    drop(folder / "x.jsonl", lines(event(1), "bad"))
    ingest_folder(one, folder)
    before = one.number("positive_replies_today")
    for _ in range(2):
        drop(folder / "x.jsonl", lines(event(1), "bad"))
        assert ingest_folder(one, folder) == FilesReport(files=1, events=2, rejected=1)
    assert one.number("positive_replies_today") == before == 1
    assert one.events("deliveries") == [3, 3]
    assert tree(folder / "done") == ["x.2.jsonl", "x.3.jsonl", "x.jsonl"]
    assert tree(folder / "rejected") == ["x.rejected.jsonl", "x.rejected.reasons.txt"]
    drop(folder / "x.jsonl", lines("worse"))
    ingest_folder(one, folder)
    assert (folder / "rejected/x.rejected.2.jsonl").read_text() == "worse\n"
    assert "line 1" in (folder / "rejected/x.rejected.2.reasons.txt").read_text()


def test_more_events_than_a_batch_are_all_ingested(
    one: Clients, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BATCH", 4)
    drop(folder / "x.jsonl", lines(*(event(number) for number in range(1, 12))))
    assert ingest_folder(one, folder) == FilesReport(files=1, events=11)
    assert one.number("positive_replies_today") == 11


def test_control_characters_and_broken_text_in_one_record_do_not_break_the_others(
    one: Clients, folder: Path
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


def test_a_file_that_is_still_written_is_left_alone(one: Clients, folder: Path) -> None:
    drop(folder / "x.jsonl", lines(event(1)))
    assert ingest_folder(one, folder, now=WRITTEN + 1) == FilesReport(skipped=1)
    assert (tree(folder), one.events("id")) == (["x.jsonl"], [])
    assert ingest_folder(one, folder, now=WRITTEN + 2) == FilesReport(files=1, events=1)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_file_that_ends_in_the_middle_is_waited_for_for_a_minute(
    one: Clients, folder: Path, name: str
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
    one: Clients, folder: Path, name: str
) -> None:
    whole = lines(event(1), event(2)) if name.endswith("l") else json.dumps([event(1), event(2)])
    drop(folder / name, whole[:-10])
    report = ingest_folder(one, folder, now=WRITTEN + 61)
    assert (report.files, report.rejected) == (1, 1)
    assert "JSON in UTF-8" in (folder / REASONS).read_text()
    assert [it for it in one.events("status") if it == "applied"] == (
        ["applied"] if name == "x.jsonl" else []
    )
    assert tree(folder)[0] == f"done/{name}"


def test_an_endless_line_is_rejected_and_read_over(one: Clients, folder: Path) -> None:
    endless = json.dumps(event(2, name="x" * (3 * records.LARGEST_RECORD)))
    drop(folder / "x.jsonl", lines(event(1), endless, event(3)))
    assert ingest_folder(one, folder) == FilesReport(files=1, events=2, rejected=1)
    assert stored_leads(one) == ["lead.id=1", "lead.id=3"]
    reasons = (folder / REASONS).read_text()
    assert reasons == "line 2: It is longer than 1048576 bytes.\n"
    longest = json.dumps(event(4, name="x")).replace(
        '"x"',
        '"' + "x" * (records.LARGEST_RECORD - len(json.dumps(event(4, name="x"))) - 2) + '"',
    )
    drop(folder / "y.jsonl", lines(longest))
    assert ingest_folder(one, folder) == FilesReport(files=1, events=1)


def test_a_json_file_that_is_too_large_is_rejected_with_the_remedy(
    one: Clients, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LARGEST_JSON", 100)
    drop(folder / "x.json", json.dumps([event(1), event(2)]))
    assert ingest_folder(one, folder) == FilesReport(files=1, rejected=1)
    assert "one event per line" in (folder / REASONS).read_text()


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_killed_between_storing_and_moving_a_file_is_read_again_and_counts_once(
    one: Clients, folder: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
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
    assert tree(folder) == REJECTED


def test_a_file_that_another_process_moved_is_no_error(
    one: Clients, folder: Path, monkeypatch: pytest.MonkeyPatch
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
    one: Clients, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
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


def test_while_the_database_is_away_a_file_stays_where_it_is(one: Clients, folder: Path) -> None:
    drop(folder / "x.jsonl", lines(event(1)))
    away = open_engine(make_url("postgresql+psycopg://kpi@127.0.0.1:1/kpi"))
    inbox = replace(one.inbox(), engine=away)
    with pytest.raises(SQLAlchemyError):
        ingest_files(inbox, folder, ["main"], now=lambda: AT_REST)
    away.dispose()
    assert tree(folder) == ["x.jsonl"]
    assert ingest_folder(one, folder) == FilesReport(files=1, events=1)
