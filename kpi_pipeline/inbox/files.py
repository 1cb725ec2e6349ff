"""Ingests files of events from a drop folder, for events that did not come as a webhook.

A file holds one event or a list of them (`.json`), or one per line (`.jsonl`, `.ndjson`), each with
the body that a webhook would have. Its events are stored first, and the file is moved afterwards:
after an interruption it is read again, and events that are stored already are recognized.

What was ingested or rejected holds personal data: nobody else may read it, and it is deleted like
the bodies of events.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.inbox.records import FileOutcome, UnfinishedFileError, ingest_file
from kpi_pipeline.settings.private_folders import (
    FILE_MODE,
    FOLDER_MODE,
    files_of,
    make_private,
    private_folder,
)

DONE, REJECTED = "done", "rejected"
_SUFFIXES = {".json", ".jsonl", ".ndjson"}
# A file that was not written to for that long is complete.
_QUIET_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilesReport:
    """Numbers of ingested files, their events, and their rejected records.

    `skipped` files are still being written, or can't be read.
    """

    files: int = 0
    events: int = 0
    rejected: int = 0
    skipped: int = 0


def ingest_files(
    inbox: Inbox, folder: Path, instances: Sequence[str], now: Callable[[], float] = time.time
) -> FilesReport:
    """Ingest the files of `folder`, and of its subfolders that are named after `instances`.

    An ingested file moves to `done`; its invalid records are written to `rejected`, with the
    reasons next to them. `now` is the time by the file system's clock.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable; the file stays in place.
    """
    files = events = rejected = skipped = 0
    for instance, path in _dropped(folder, instances):
        try:
            age = now() - path.stat().st_mtime
            if age < _QUIET_SECONDS:
                skipped += 1
                continue
            outcome = ingest_file(inbox, path, instance, age)
            _keep_rejected(folder / REJECTED, path.name, outcome)
            _move(path, folder / DONE)
        except UnfinishedFileError:
            skipped += 1
        except FileNotFoundError:
            # Another process has moved it.
            continue
        except OSError as error:
            skipped += 1
            _log.warning("%s could not be ingested: %s", path, error.strerror or error)
        else:
            files += 1
            events += outcome.events
            rejected += len(outcome.rejected)
    return FilesReport(files, events, rejected, skipped)


def prepare_folders(folder: Path) -> None:
    """Create the drop folder, `done` and `rejected`, and make the last two private.

    Others may have to write into the drop folder: one that exists keeps its mode.

    Raises:
        OSError: if a folder can't be created.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    for name in (DONE, REJECTED):
        private_folder(folder / name)


def delete_old_files(
    folder: Path, *, older_than_days: int, now: Callable[[], float] = time.time
) -> int:
    """Delete the files that were ingested or rejected more than so many days ago; return how many.

    All others are made private, if somebody changed their modes.
    """
    before = now() - timedelta(days=older_than_days).total_seconds()
    deleted = 0
    for place in (folder / DONE, folder / REJECTED):
        if not place.is_dir():
            continue
        if not private_folder(place):
            _log.warning("%s can be read by others: its owner has to set its mode to 700.", place)
        for path in files_of(place):
            # Another process may have deleted it.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    deleted += 1
                else:
                    make_private(path)
    return deleted


def _dropped(folder: Path, instances: Sequence[str]) -> Iterator[tuple[str | None, Path]]:
    """The files to ingest, each with its instance if the subfolder names one."""
    places: list[tuple[str | None, Path]] = [(None, folder)]
    places += [(name, folder / name) for name in instances]
    for instance, place in places:
        if not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            hidden = path.name.startswith(".")
            if path.is_file() and path.suffix.lower() in _SUFFIXES and not hidden:
                yield instance, path


def _keep_rejected(folder: Path, name: str, outcome: FileOutcome) -> None:
    if not outcome.rejected:
        return
    private_folder(folder)
    records = b"".join(it.line + b"\n" for it in outcome.rejected)
    reasons = "".join(f"{it.place}: {it.reason}\n" for it in outcome.rejected)
    target = folder / f"{Path(name).stem}.rejected.jsonl"
    # The same records are there if an earlier attempt stopped before it moved the file.
    if target.exists() and target.read_bytes() != records:
        target = _free(folder, target.name)
    _write(target, records)
    _write(target.with_suffix(".reasons.txt"), reasons.encode())


def _write(target: Path, content: bytes) -> None:
    unfinished = target.with_name(f".{target.name}")
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(opened, "wb") as file:
        # It may be left from an interruption, with another mode.
        os.fchmod(opened, FILE_MODE)
        file.write(content)
    unfinished.replace(target)


def _move(path: Path, folder: Path) -> None:
    private_folder(folder)
    make_private(path)
    moved = path.replace(_free(folder, path.name))
    # Its age counts from now on, like that of the events in it.
    with suppress(PermissionError, FileNotFoundError):
        os.utime(moved)


def _free(folder: Path, name: str) -> Path:
    """A path in `folder` that is not taken: `x.json`, `x.2.json`, …"""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{Path(name).stem}.{number}{Path(name).suffix}"
    return path
