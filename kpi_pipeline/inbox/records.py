"""Reads the records of one file of events, and takes them in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.domain.events.parse import understand
from kpi_pipeline.inbox.ingest import Inbox, ingest, instances_at

LARGEST_RECORD = 1024 * 1024
LARGEST_JSON = 64 * 1024 * 1024
# A file that ends in the middle may be one that somebody still writes, slowly.
_CUT_OFF_AFTER_SECONDS = 60.0
_AT_ONCE = 500


class Unfinished(Exception):  # noqa: N818 - says what it is
    """A file that ends in the middle, and was written to a moment ago."""


@dataclass(frozen=True)
class RejectedRecord:
    """A record that can't be taken in: where it stands, as one line, and why."""

    place: str
    line: bytes
    reason: str


@dataclass
class FileOutcome:
    """What became of a file: how many events were stored, and what was rejected."""

    events: int = 0
    rejected: list[RejectedRecord] = field(default_factory=list)


@dataclass(frozen=True)
class _Record:
    place: str
    body: bytes
    fault: str | None = None


def take_up_file(inbox: Inbox, path: Path, instance: str | None, age: float) -> FileOutcome:
    """Store the events of a file that was last written to `age` seconds ago, and apply them.

    Without an `instance`, each record's own address names it, or there is only one.

    Raises:
        Unfinished: if it ends in the middle and is younger than a minute; nothing is stored then.
        OSError: if it can't be read.
        sqlalchemy.exc.SQLAlchemyError: if the database goes away; reading it again does no harm.
    """
    young = age < _CUT_OFF_AFTER_SECONDS
    outcome = FileOutcome()
    lines = path.suffix.lower() != ".json"
    records = _lines(path, young=young) if lines else iter(_whole(path, young=young))
    if lines and young:
        # All is looked at before the first is stored, for the end may not be there yet.
        for _ in _lines(path, young=True):
            pass
    while batch := list(islice(records, _AT_ONCE)):
        _take_in(inbox, batch, instance, outcome)
    return outcome


def _take_in(
    inbox: Inbox, batch: list[_Record], instance: str | None, outcome: FileOutcome
) -> None:
    arrived_at = inbox.now()
    readable: list[tuple[_Record, Event]] = []
    for record in batch:
        owner = instance or _instance_of(inbox, record)
        fault = record.fault
        if fault is None and owner is None:
            fault = (
                "There are several instances, and its event.instance_url names none of them: drop "
                "the file into a subfolder that is called like its instance."
            )
        if fault is not None or owner is None:
            outcome.rejected.append(
                RejectedRecord(record.place, _one_line(record.body), str(fault))
            )
            continue
        event = understand(
            record.body,
            instance=owner,
            source=EventSource.FILE,
            arrived_at=arrived_at,
            tz=inbox.timezone,
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
    told = understand(
        record.body,
        instance="",
        source=EventSource.FILE,
        arrived_at=inbox.now(),
        tz=inbox.timezone,
    ).instance_url
    named = instances_at(told, inbox.instance_urls)
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
                raise Unfinished
            if line.strip():
                yield _Record(place, line.strip())


def _whole(path: Path, *, young: bool) -> list[_Record]:
    """The one event of a file, or each of its list."""
    if path.stat().st_size > LARGEST_JSON:
        fault = (
            f"The file is larger than {LARGEST_JSON // 2**20} MiB: write one event a line, and "
            "call it .jsonl."
        )
        return [_Record("the file", b"", fault)]
    body = path.read_bytes()
    try:
        content = json.loads(body.decode(), strict=False)
    except (ValueError, RecursionError):
        if young:
            raise Unfinished from None
        return [_Record("the file", body, "It is no JSON in UTF-8.")]
    if not isinstance(content, list):
        return [_Record("the file", body.strip())]
    return [
        _Record(f"record {number}", json.dumps(record, separators=(",", ":")).encode())
        for number, record in enumerate(content, start=1)
    ]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode(), strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _one_line(body: bytes) -> bytes:
    return b" ".join(body.split(b"\n"))
