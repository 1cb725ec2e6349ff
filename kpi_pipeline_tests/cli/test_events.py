"""`kpi events`: what came in and what became of it, without a word of what people wrote."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.domain.events.event import Event
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone, cells, days_ago, written
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.domain.bodies import content, parsed
from kpi_pipeline_tests.inbox.support import Clients

PERSONAL = ["Quill", "quill@lead.example", "Call me"]


@pytest.fixture
def clients(
    database: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> Clients:
    """Two clients, whose clock is the real one, as a command's is."""
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main https://mail.example")
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay [EU]"))
    return Clients(engine, vault, at=utc_now(), tz=calm_zone())


def lead(number: int, workspace_id: int = 101, **envelope: object) -> dict[str, Any]:
    """A lead turned interested, with what is known of the person."""
    name, email, words = PERSONAL
    data = {
        "lead": {"id": number, "last_name": name, "email": email},
        "campaign": {"id": 3},
        "reply": {"id": number, "text_body": words},
    }
    return content("LEAD_INTERESTED", data, workspace_id, **envelope)


def arrived(number: int, workspace_id: int = 101, days: float = 0) -> Event:
    """It came in so many days ago."""
    moment = utc_now() - timedelta(days=days)
    return parsed(lead(number, workspace_id), moment, tz=calm_zone())


def test_the_list_shows_each_event_and_why_it_does_not_count_and_nothing_of_a_person(
    kpi: Kpi, clients: Clients
) -> None:
    ids = [
        it.event_id
        for it in clients.ingest(
            arrived(1), arrived(2, 109), parsed({"event": {"x": PERSONAL}}, utc_now())
        )
    ]
    screen = kpi("events", "list").answer()
    today = days_ago(0).isoformat()
    counted, stranger, invalid = (cells(screen, str(it)) for it in ids)
    assert counted[2:] == ["lead_interested", "harbor", today, "applied", "0", ""]
    assert stranger[3:6] == ["main 109", today, "unmatched"]
    assert "No client has this workspace" in stranger[-1]
    assert invalid[2:6] == ["–", "main –", "–", "invalid"]
    assert "event.type is no type name" in invalid[-1]
    assert screen.splitlines()[-1] == "3 of 3 events"
    assert [it for it in PERSONAL if it in screen] == []


def test_the_list_is_limited_and_says_of_how_many(kpi: Kpi, clients: Clients) -> None:
    receipts = clients.ingest(*(arrived(number) for number in range(1, 6)))
    screen = kpi("events", "list", "--limit", "2").answer()
    assert screen.splitlines()[-1] == "2 of 5 events"
    assert cells(screen, str(receipts[-1].event_id))[5] == "applied"


def test_the_list_can_be_narrowed(kpi: Kpi, clients: Clients) -> None:
    clients.ingest(arrived(1), arrived(2, 102), arrived(3, 109), arrived(4, days=3))
    for words, number in (
        (["-w", "harbor"], 2),
        (["-w", "harbor", "-w", "quay-eu"], 3),
        (["--status", "unmatched"], 1),
        (["--since", f"{days_ago(1)}"], 3),
        (["--since", f"{days_ago(1)}T00:00", "-w", "harbor"], 1),
        (["--since", f"{days_ago(-1)}"], 0),
    ):
        screen = kpi("events", "list", *words).answer()
        assert screen.splitlines()[-1] == f"{number} of {counted(number, 'event')}", words


def test_a_replay_applies_what_waits_and_says_how_much_is_left(kpi: Kpi, clients: Clients) -> None:
    clients.ingest(arrived(1), arrived(2, 109), realtime=False)
    assert kpi("events", "replay").answer().splitlines() == [
        "1 of 2 events applied.",
        "Not applied: 1; `kpi events list` says why.",
    ]
    assert clients.number("positive_replies_today", day=days_ago(0)) == 1
    again = kpi("events", "replay", "--status", "applied", "-w", "harbor").answer()
    assert again == "1 of 1 event applied.\n"
    assert clients.number("positive_replies_today", day=days_ago(0)) == 1


@pytest.mark.parametrize("command", ["list", "replay"])
def test_an_unknown_client_is_refused_by_name(kpi: Kpi, clients: Clients, command: str) -> None:
    assert "harbour" in kpi("events", command, "-w", "harbour").error()


def test_files_are_ingested_and_stay_where_they_are(
    kpi: Kpi, clients: Clients, tmp_path: Path
) -> None:
    lines = written(tmp_path / "a.jsonl", json.dumps(lead(1)), json.dumps(lead(2)))
    one = written(tmp_path / "b.json", json.dumps(lead(3, 102)))
    for _ in range(2):
        answer = kpi("events", "ingest", lines, one).answer()
        assert answer == "3 events stored, 0 records rejected.\n"
    assert clients.number("positive_replies_today", day=days_ago(0)) == 2
    assert clients.number("positive_replies_today", "quay-eu", days_ago(0)) == 1
    assert Path(lines).exists()


def test_rejected_records_are_named_with_their_reasons_and_the_good_ones_count(
    kpi: Kpi, clients: Clients, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.jsonl", json.dumps(lead(1)), "no [event]", json.dumps({"a": 1}))
    result = kpi("events", "ingest", path)
    assert (result.code, result.out) == (1, "3 events stored, 2 records rejected.\n")
    assert result.err.startswith("Error: Rejected:\n")
    _, second, third = result.err.splitlines()
    assert second.startswith("a.jsonl, line 2: The body can't be understood: it is no JSON")
    assert third.startswith("a.jsonl, line 3: The body can't be understood: it has no object")
    assert clients.number("positive_replies_today", day=days_ago(0)) == 1


def test_the_instance_can_be_named_and_must_be_known(
    kpi: Kpi, clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = "main https://mail.example, emea https://emea.example"
    monkeypatch.setenv("KPI_BISON_INSTANCES", two)
    path = written(tmp_path / "a.jsonl", json.dumps(lead(1)))
    unnamed = kpi("events", "ingest", path)
    assert (unnamed.code, "Several instances are configured" in unnamed.err) == (1, True)
    assert clients.events("id") == []
    kpi("events", "ingest", path, "--instance", "main").answer()
    assert clients.events("instance", "status") == [("main", "applied")]
    assert "west" in kpi("events", "ingest", path, "--instance", "west").error()


def test_a_file_that_is_missing_or_incomplete_is_rejected_with_a_sentence(
    kpi: Kpi, clients: Clients, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere.json"
    error = kpi("events", "ingest", str(missing)).error()
    assert error == f"{missing} cannot be read: No such file or directory."
    cut_off = written(tmp_path / "a.json", json.dumps([lead(1)])[:-5])
    error = kpi("events", "ingest", cut_off).error()
    assert error.startswith(f"{cut_off} ends in the middle")
    assert clients.events("id") == []


def test_a_purge_deletes_old_bodies_and_says_how_many(
    kpi: Kpi, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients.ingest(arrived(1, days=40), arrived(2, days=20), arrived(3))
    monkeypatch.setenv("KPI_EVENT_RETENTION_DAYS", "30")
    answer = kpi("events", "purge").answer()
    assert " ".join(answer.split()) == (
        "Deleted: the bodies of 1 event and 0 files older than 30 days, "
        "and 0 events that raise no number any more."
    )
    assert [it is None for it in clients.events("body")] == [True, False, False]
    answer = kpi("events", "purge", "--older-than-days", "0").answer()
    assert " ".join(answer.split()) == (
        "Deleted: the bodies of 2 events and 0 files older than 0 days, "
        "and 0 events that raise no number any more."
    )
    assert set(clients.events("body")) == {None}
    assert set(clients.events("status")) == {"applied"}
