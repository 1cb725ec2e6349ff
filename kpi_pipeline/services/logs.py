"""Log files that are appended to and rotated.

A log of a child process is its standard output. It is rotated by copying and truncating: a process
goes on writing to the file that it was given, however long the supervisor is stopped or gone.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO

from kpi_pipeline.settings.logs import formatter

# Of one part: three older files beside the one that is written.
LARGEST_LOG = 2 * 1024 * 1024
_OLDER_FILES = 3


@contextmanager
def logging_to(log: Path, log_format: str) -> Iterator[None]:
    """Have this process log its own records to a file that rotates, while the block runs."""
    with append_to(log):
        pass
    handler = RotatingFileHandler(
        log, maxBytes=LARGEST_LOG, backupCount=_OLDER_FILES, encoding="utf-8"
    )
    handler.setFormatter(formatter(log_format))
    logger = logging.getLogger("kpi_pipeline.services")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # The console has its own sentences.
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()


def append_to(log: Path) -> BinaryIO:
    """Open a log at its end, rotated where it is large; no other user of the machine reads it."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    rotate(log)
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def rotate(log: Path, largest: int = LARGEST_LOG) -> None:
    """Move the content of a log that is larger than `largest` bytes to `NAME.1`, that to `.2` …

    Lines that are written between the copy and the truncation are lost: some microseconds' worth.
    """
    if not log.exists() or log.stat().st_size <= largest:
        return
    # Copied before an older file is moved: on a full disk, all stay as they are.
    copy = log.with_name(f"{log.name}.new")
    try:
        shutil.copy(log, copy)
    except OSError:
        copy.unlink(missing_ok=True)
        raise
    older = [log.with_name(f"{log.name}.{number}") for number in range(1, _OLDER_FILES + 1)]
    for newer, file in reversed(list(pairwise(older))):
        if newer.exists():
            newer.replace(file)
    copy.replace(older[0])
    os.truncate(log, 0)
