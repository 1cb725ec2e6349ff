import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from kpi_pipeline.inbox import records
from kpi_pipeline.inbox.files import FilesReport
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.inbox.support import (
    Agency,
    drop,
    event,
    ingest_folder,
    keys,
    lines,
    tree,
)

MAIN = "https://mail.example"


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
    ],
)
def test_a_file_of_one_event_a_list_or_one_per_line_is_ingested_and_moved(
    one: Agency, folder: Path, name: str, text: str, leads: Sequence[int]
) -> None:
    drop(folder / name, text)
    assert ingest_folder(one, folder) == FilesReport(files=1, events=len(leads))
    assert keys(one) == [f"lead.id={number}" for number in leads]
    assert set(one.events("source", "status")) <= {("file", "applied")}
    assert tree(folder) == [f"done/{name}"]
    assert ingest_folder(one, folder) == FilesReport()


def test_other_files_and_folders_are_ignored(one: Agency, folder: Path) -> None:
    assert ingest_folder(one, folder) == FilesReport(), "the folder need not exist"
    for name in ("notes.txt", ".hidden.json", "elsewhere/x.json", "done/x.json", "x.json.part"):
        drop(folder / name, json.dumps(event(1)))
    (folder / "folder.json").mkdir()
    before = tree(folder)
    assert ingest_folder(one, folder) == FilesReport()
    assert tree(folder) == before


def test_the_subfolder_or_the_address_names_the_instance(agency: Agency, folder: Path) -> None:
    imported(agency.engine, agency.vault, record(101, "Emea Harbor", instance="emea"))
    drop(folder / "emea" / "by-folder.jsonl", lines(event(1)))
    by_address = [
        event(2, instance_url=f"{MAIN}/"),
        event(3, instance_url="https://emea.example"),
    ]
    drop(folder / "by-address.jsonl", lines(*by_address))
    report = ingest_folder(agency, folder)
    assert report == FilesReport(files=2, events=3)
    assert {(*it,) for it in agency.events("instance", "workspace")} == {
        ("main", "harbor"),
        ("emea", "emea-harbor"),
    }
    assert sorted(agency.events("instance")) == ["emea", "emea", "main"]
    assert tree(folder) == ["done/by-address.jsonl", "done/by-folder.jsonl"]


def test_among_several_instances_a_record_that_names_none_is_rejected(
    agency: Agency, folder: Path
) -> None:
    good = event(2, instance_url=MAIN)
    drop(
        folder / "x.jsonl",
        lines(event(1), good, event(3, instance_url="https://else.example")),
    )
    assert ingest_folder(agency, folder) == FilesReport(files=1, events=1, rejected=2)
    reasons = (folder / "rejected/x.rejected.reasons.txt").read_text().splitlines()
    assert [it.split(":")[0] for it in reasons] == ["line 1", "line 3"]
    assert "subfolder with the name of its instance" in reasons[0]
    # What was rejected can be dropped again, in the place that it belongs to.
    again = (folder / "rejected/x.rejected.jsonl").read_bytes()
    drop(folder / "main" / "x.jsonl", again.splitlines()[0] + b"\n")
    assert ingest_folder(agency, folder) == FilesReport(files=1, events=1)


def test_a_record_of_another_instance_than_its_folder_is_rejected(
    agency: Agency, folder: Path
) -> None:
    drop(folder / "main" / "x.json", json.dumps(event(1, instance_url="https://emea.example")))
    assert ingest_folder(agency, folder) == FilesReport(files=1, events=1, rejected=1)
    assert (
        "is an event of instance emea" in (folder / "rejected/x.rejected.reasons.txt").read_text()
    )
    assert agency.events("status") == ["invalid"]


def test_faulty_records_are_set_aside_with_their_reasons_and_stop_none_of_the_good_ones(
    one: Agency, folder: Path
) -> None:
    faulty = ['{"event": hush}', json.dumps(content("lead_replied", {"hush": 1})), "[]"]
    drop(
        folder / "x.jsonl",
        lines(event(1), faulty[0], event(2), faulty[1], faulty[2], event(3)),
    )
    assert ingest_folder(one, folder) == FilesReport(files=1, events=6, rejected=3)
    assert one.number("positive_replies_today") == 3
    assert (folder / "rejected/x.rejected.jsonl").read_text() == lines(*faulty)
    reasons = (folder / "rejected/x.rejected.reasons.txt").read_text()
    assert [it.split(":")[0] for it in reasons.splitlines()] == ["line 2", "line 4", "line 5"]
    assert "hush" not in reasons
    assert "data.reply.id" in reasons
    assert tree(folder) == [
        *("done/x.jsonl", "rejected/x.rejected.jsonl", "rejected/x.rejected.reasons.txt")
    ]


def test_the_same_file_twice_changes_nothing_and_both_are_kept(one: Agency, folder: Path) -> None:
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
    one: Agency, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BATCH", 4)
    drop(folder / "x.jsonl", lines(*(event(number) for number in range(1, 12))))
    assert ingest_folder(one, folder) == FilesReport(files=1, events=11)
    assert one.number("positive_replies_today") == 11
