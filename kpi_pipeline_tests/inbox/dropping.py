"""Files of events, and the folder that they are dropped into; the files' clock is set by hand."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kpi_pipeline.inbox.files import FilesReport, ingest_files
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.inbox.support import Agency

WRITTEN = 1_000_000.0
AT_REST = WRITTEN + 3


def told(number: int, **changed: Any) -> dict[str, Any]:
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


def take_up(agency: Agency, folder: Path, now: float = AT_REST) -> FilesReport:
    return ingest_files(agency.inbox(), folder, sorted(agency.urls), now=lambda: now)


def tree(folder: Path) -> list[str]:
    """All files below, by their path from there."""
    return sorted(str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file())


def keys(agency: Agency) -> list[str]:
    return [key.rsplit(" ", 2)[-2] for key in agency.events("idempotency_key")]
