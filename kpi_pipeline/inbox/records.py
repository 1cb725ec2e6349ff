"""Reads the records of one file of events, and ingests them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.domain.events.parse import load_json, parse_event
from kpi_pipeline.inbox.ingest import Inbox, ingest, instances_at

LARGEST_RECORD = 1024 * 1024
LARGEST_JSON = 64 * 1024 * 1024
# A file that ends in the middle of a record may still be being written, slowly.
_CUT_OFF_AFTER_SECONDS = 60.0
_BATCH = 500


class UnfinishedFileError(Exception):
    """The file ends in the middle of a record, and was written to within the last minute."""


@dataclass(frozen=True)
class RejectedRecord:
    """A record that can't be ingested: its place in the file, its text as one line, and why."""

    place: str
    line: bytes
    reason: str


@dataclass
class FileOutcome:
    """Result of one file: the number of stored events, and the rejected records."""

    events: int = 0
    rejected: list[RejectedRecord] = field(default_factory=list)


@dataclass(frozen=True)
class _Record:
    place: str
    body: bytes
    problem: str | None = None


def ingest_file(inbox: Inbox, path: Path, instance: str | None, age: float) -> FileOutcome:
    """Store the events of a file that was last written to `age` seconds ago, and apply them.

    Without an `instance`, the address in each record names it, unless only one is configured.

    Raises:
        UnfinishedFileError: if the file ends in the middle of a record and is younger than a
            minute; nothing is stored then.
        OSError: if it can't be read.
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable; the file can be read again.
    """
    young = age < _CUT_OFF_AFTER_SECONDS
    outcome = FileOutcome()
    lines = path.suffix.lower() != ".json"
    records = _lines(path, young=young) if lines else iter(_json(path, young=young))
    if lines and young:
        # Read to the end before anything is stored: the last record may be incomplete.
        for _ in _lines(path, young=True):
            pass
    while batch := list(islice(records, _BATCH)):
        _ingest_batch(inbox, batch, instance, outcome)
    return outcome


def _ingest_batch(
    inbox: Inbox, batch: list[_Record], instance: str | None, outcome: FileOutcome
) -> None:
    arrived_at = inbox.now()
    readable: list[tuple[_Record, Event]] = []
    for record in batch:
        owner = instance or _instance_of(inbox, record)
        problem = record.problem
        if problem is None and owner is None:
            problem = (
                "Several instances are configured, and its event.instance_url names none of them: "
                "drop the file into a subfolder with the name of its instance."
            )
        if problem is not None or owner is None:
            outcome.rejected.append(
                RejectedRecord(record.place, _one_line(record.body), str(problem))
            )
            continue
        event = parse_event(
            record.body,
            instance=owner,
            source=EventSource.FILE,
            arrived_at=arrived_at,
            tz=inbox.day_zone,
        )
        readable.append((record, event))
    receipts = ingest(inbox, [event for _, event in readable])
    for (record, _), receipt in zip(readable, receipts, strict=True):
        outcome.events += 1
        if receipt.status is EventStatus.INVALID:
            reason = f"{receipt.reason} It is kept in the inbox as event {receipt.event_id}."
            outcome.rejected.append(RejectedRecord(record.place, _one_line(record.body), reason))


def _instance_of(inbox: Inbox, record: _Record) -> str | None:
    if len(inbox.instance_urls) == 1:
        return next(iter(inbox.instance_urls))
    event = parse_event(
        record.body,
        instance="",
        source=EventSource.FILE,
        arrived_at=inbox.now(),
        tz=inbox.day_zone,
    )
    named = instances_at(event.instance_url, inbox.instance_urls)
    return min(named) if len(named) == 1 else None


def _lines(path: Path, *, young: bool) -> Iterator[_Record]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LARGEST_RECORD + 1):
            number += 1
            place = f"line {number}"
            if len(line) > LARGEST_RECORD:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LARGEST_RECORD)
                yield _Record(place, b"", f"It is longer than {LARGEST_RECORD} bytes.")
                continue
            if young and not line.endswith(b"\n") and not _is_json(line):
                raise UnfinishedFileError
            if line.strip():
                yield _Record(place, line.strip())


def _json(path: Path, *, young: bool) -> list[_Record]:
    """The one event of a file, or each event of its list."""
    if path.stat().st_size > LARGEST_JSON:
        problem = (
            f"The file is larger than {LARGEST_JSON // 2**20} MiB: write one event per line, and "
            "name it .jsonl."
        )
        return [_Record("the file", b"", problem)]
    body = path.read_bytes()
    try:
        content = load_json(body)
    except (ValueError, RecursionError):
        if young:
            raise UnfinishedFileError from None
        return [_Record("the file", body, "It is not JSON in UTF-8.")]
    if not isinstance(content, list):
        return [_Record("the file", body.strip())]
    return [
        _Record(f"record {number}", json.dumps(record, separators=(",", ":")).encode())
        for number, record in enumerate(content, start=1)
    ]


def _is_json(line: bytes) -> bool:
    try:
        load_json(line)
    except (ValueError, RecursionError):
        return False
    return True


def _one_line(body: bytes) -> bytes:
    return b" ".join(body.split(b"\n"))
