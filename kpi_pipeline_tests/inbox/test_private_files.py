"""Ingested and rejected files hold personal data: private, and deleted after their time."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpi_pipeline.inbox.files import FilesReport, delete_old_files, prepare_folders
from kpi_pipeline_tests.inbox.support import URLS, Clients
from kpi_pipeline_tests.inbox.test_files import drop, event, ingest_folder, lines

DAY = 24 * 3600.0


@pytest.fixture
def one(clients: Clients) -> Clients:
    """The clients, with a single instance."""
    clients.urls = {"main": URLS["main"]}
    return clients


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """Whatever the process would allow, the modes are set."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The modes of `done`, `rejected` and their files."""
    found = [
        it for name in ("done", "rejected") for it in [folder / name, *(folder / name).iterdir()]
    ]
    return {str(it.relative_to(folder)): f"{stat.S_IMODE(it.stat().st_mode):o}" for it in found}


def test_ingested_and_rejected_files_are_private(one: Clients, folder: Path) -> None:
    drop(folder / "x.jsonl", lines(event(1), "bad"))
    (folder / "x.jsonl").chmod(0o664)
    assert ingest_folder(one, folder) == FilesReport(files=1, events=2, rejected=1)
    assert modes(folder) == {
        "done": "700",
        "done/x.jsonl": "600",
        "rejected": "700",
        "rejected/x.rejected.jsonl": "600",
        "rejected/x.rejected.reasons.txt": "600",
    }


def test_what_an_earlier_version_left_readable_is_made_private(folder: Path) -> None:
    for name in ("done/x.json", "rejected/y.jsonl"):
        drop(folder / name, "{}").chmod(0o644)
    folder.chmod(0o775)

    prepare_folders(folder)

    private = {"done": "700", "done/x.json": "600", "rejected": "700", "rejected/y.jsonl": "600"}
    assert modes(folder) == private
    assert stat.S_IMODE(folder.stat().st_mode) == 0o775, "others may have to drop files here"
    (folder / "done/x.json").chmod(0o644)
    assert delete_old_files(folder, older_than_days=10**5) == 0
    assert modes(folder) == private


def test_a_drop_folder_that_is_created_is_private(folder: Path) -> None:
    prepare_folders(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {"done": "700", "rejected": "700"}


def test_files_are_deleted_so_many_days_after_they_were_ingested(
    one: Clients, folder: Path
) -> None:
    # Written long before it is dropped.
    drop(folder / "x.jsonl", lines(event(1), "bad"))
    ingest_folder(one, folder)
    ingested_at = (folder / "done/x.jsonl").stat().st_mtime
    drop(folder / "later.json", "[]")

    def deleted(after_days: float) -> int:
        return delete_old_files(folder, older_than_days=30, now=lambda: ingested_at + after_days)

    assert deleted(29.9 * DAY) == 0
    assert deleted(31 * DAY) == 3
    assert list(modes(folder)) == ["done", "rejected"]
    assert (folder / "later.json").exists(), "it is not ingested yet"


def test_without_a_folder_there_is_nothing_to_delete(folder: Path) -> None:
    assert delete_old_files(folder, older_than_days=1) == 0
    assert not folder.exists()
