"""The file of a dump: what it adds up, and that no damage goes unnoticed."""

import json
import os
import random
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kpi_pipeline.db.backup.archive import (
    DatabaseContent,
    Manifest,
    SecretKeyUse,
    TableContent,
    content_of,
    is_dump,
    new_dump,
    open_dump,
)
from kpi_pipeline.errors import KpiError

ROWS = [b"%d\t%s\n" % (number, os.urandom(20).hex().encode()) for number in range(2000)]


def write(file: Path, rows: list[bytes] = ROWS, *, promised: list[bytes] | None = None) -> Path:
    with new_dump(file) as writer:
        content = writer.write("kpi", "clients", rows)
        if promised is not None:
            content = content_of(promised)
        table = TableContent(**content.model_dump(), columns=["id", "name"])
        writer.finish(
            Manifest(
                made_at=datetime(2026, 3, 18, 20, 0, tzinfo=UTC),
                version="1.0",
                dagster_version="1.13",
                secret_keys=SecretKeyUse(),
                databases={"kpi": DatabaseContent(revision="0001", tables={"clients": table})},
            )
        )
    return file


def test_rows_come_back_as_they_were_in_a_file_that_any_zip_program_opens(tmp_path: Path) -> None:
    file = write(tmp_path / "dump.zip")
    with open_dump(file) as dump:
        dump.verify()
        assert list(dump.lines("kpi", "clients")) == ROWS
        assert dump.manifest.lines == 2000
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["kpi/clients.txt", "manifest.json"]
        assert json.loads(archive.read("manifest.json"))["made_at"] == "2026-03-18T20:00:00Z"


def test_the_sums_are_those_of_the_same_rows_in_any_order_and_of_no_others() -> None:
    mixed = ROWS.copy()
    random.Random(1).shuffle(mixed)
    whole = content_of(ROWS)
    assert whole.is_that_of(content_of(mixed))
    changed = ROWS[0].replace(b"0\t", b"1\t")
    for others in (ROWS[1:], [*ROWS, ROWS[0]], [changed, *ROWS[1:]], [*ROWS[1:], ROWS[1]]):
        assert not whole.is_that_of(content_of(others))


def test_a_dump_that_reads_back_as_something_else_gets_no_name_and_the_earlier_one_stays(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "dump.zip")
    before = file.read_bytes()
    with pytest.raises(KpiError, match="is no whole dump"):
        write(file, ROWS, promised=ROWS[1:])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-200],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:500] + bytes([whole[500] ^ 1]) + whole[501:],
        lambda whole: whole.replace(b"kpi/clients.txt", b"kpi/another.txt"),
        lambda _: b"",
        lambda _: b"SELECT 1;\n",
    ],
    ids=["no end", "half", "a bit", "another table", "empty", "SQL"],
)
def test_damage_is_noticed(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = write(tmp_path / "dump.zip")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(KpiError, match="is no whole dump"), open_dump(file) as dump:
        dump.verify()


def test_another_format_and_another_zip_file_are_not_taken_for_a_dump_of_ours(
    tmp_path: Path,
) -> None:
    file = tmp_path / "dump.zip"
    for text, message in [
        ('{"format": 2}', "is a dump of format 2, and this version of the code reads format 1"),
        ('{"format": 1}', "is no whole dump"),
        ("[]", "is no whole dump"),
    ]:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("manifest.json", text)
        with pytest.raises(KpiError, match=message), open_dump(file):
            pass
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.jpg", "")
    assert not is_dump(file)
