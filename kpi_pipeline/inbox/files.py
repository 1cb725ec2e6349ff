"""Files of events that are dropped where no webhook came through: each is taken up whole, once.

A file holds one event or a list of them (`.json`), or one a line (`.jsonl`, `.ndjson`), each with
the body that a webhook would have had. What can be read is stored first, and the file moved
afterwards: whatever breaks off in between, it is read again, and its events are known by then.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.inbox.records import FileOutcome, Unfinished, take_up_file

DONE, REJECTED = "done", "rejected"
_SUFFIXES = {".json", ".jsonl", ".ndjson"}
# Whoever writes a file in place has written to it within that time, or is done.
_AT_REST_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilesReport:
    """How many files were taken up, with how many events and records that were rejected.

    `left_alone` are files that somebody still writes, or that can't be read.
    """

    files: int = 0
    events: int = 0
    rejected: int = 0
    left_alone: int = 0


def ingest_files(
    inbox: Inbox, folder: Path, instances: Sequence[str], now: Callable[[], float] = time.time
) -> FilesReport:
    """Take up the files of `folder`, and of its subfolders that are named after `instances`.

    A file that was taken up stands in `done` afterwards; records of it that can't be understood
    stand in `rejected`, with the reasons beside them. `now` is the time of the files' own clock.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if the database goes away; the file stays where it is.
    """
    files = events = rejected = left_alone = 0
    for instance, path in _dropped(folder, instances):
        try:
            age = now() - path.stat().st_mtime
            if age < _AT_REST_SECONDS:
                left_alone += 1
                continue
            outcome = take_up_file(inbox, path, instance, age)
            _keep_rejected(folder / REJECTED, path.name, outcome)
            _move(path, folder / DONE)
        except Unfinished:
            left_alone += 1
        except FileNotFoundError:
            # Another process has taken it up.
            continue
        except OSError as error:
            left_alone += 1
            _log.warning("%s could not be taken up: %s", path, error.strerror or error)
        else:
            files += 1
            events += outcome.events
            rejected += len(outcome.rejected)
    return FilesReport(files, events, rejected, left_alone)


def _dropped(folder: Path, instances: Sequence[str]) -> Iterator[tuple[str | None, Path]]:
    """The files to look at, each with its instance where the subfolder names it."""
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
    folder.mkdir(parents=True, exist_ok=True)
    records = b"".join(it.line + b"\n" for it in outcome.rejected)
    reasons = "".join(f"{it.place}: {it.reason}\n" for it in outcome.rejected)
    target = folder / f"{Path(name).stem}.rejected.jsonl"
    # The same records stand there already where whoever wrote them did not get to moving the file.
    if target.exists() and target.read_bytes() != records:
        target = _free(folder, target.name)
    _write(target, records)
    _write(target.with_suffix(".reasons.txt"), reasons.encode())


def _write(target: Path, content: bytes) -> None:
    unfinished = target.with_name(f".{target.name}")
    unfinished.write_bytes(content)
    unfinished.replace(target)


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path.replace(_free(folder, path.name))


def _free(folder: Path, name: str) -> Path:
    """A path in `folder` that nothing stands at yet: `x.json`, `x.2.json`, …"""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{Path(name).stem}.{number}{Path(name).suffix}"
    return path
