import os
from datetime import UTC, datetime
from pathlib import Path

import psutil

from kpi_pipeline.parts import Parts, PartState, PartStatus, read_parts, write_parts

_SINCE = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
_GATEWAY = PartState("gateway", "The gateway", PartStatus.RUNNING, _SINCE, 4711, 2, "it was killed")
_PAGE = PartState("page", "Dagster's page", PartStatus.GIVEN_UP, _SINCE)


def _parts(pid: int = 1, created: float = 2.5) -> Parts:
    return Parts("kpi up", pid, created, [_GATEWAY, _PAGE])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_parts(tmp_path, _parts())
    assert read_parts(tmp_path) == _parts()
    assert _parts().given_up == [_PAGE]


def test_no_other_user_of_the_machine_reads_it(tmp_path: Path) -> None:
    write_parts(tmp_path, _parts())
    assert [(it.name, it.stat().st_mode & 0o777) for it in tmp_path.iterdir()] == [
        ("parts.json", 0o600)
    ]


def test_before_the_first_start_and_in_a_damaged_file_there_are_none(tmp_path: Path) -> None:
    assert read_parts(tmp_path) is None
    (tmp_path / "parts.json").write_text('{"command": "kpi')
    assert read_parts(tmp_path) is None


def test_parts_are_history_once_their_command_has_ended() -> None:
    created = psutil.Process().create_time()
    assert _parts(os.getpid(), created).is_supervised
    assert not _parts(os.getpid(), created - 60).is_supervised, "another process with its id"
    assert not _parts(2**22 + 1, created).is_supervised
