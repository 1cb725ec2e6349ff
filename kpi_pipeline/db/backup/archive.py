"""The file of a dump: a ZIP archive with the rows of each table, and what they have to add up to.

A member `kpi/clients.txt` holds the rows of that table as COPY writes them, a line for each. The
last member, `manifest.json`, has the number of lines and a checksum of each table. Any program for
ZIP files opens a dump, and one that was cut off has no manifest.
"""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict

from kpi_pipeline.errors import KpiError

FORMAT = 1

_MANIFEST = "manifest.json"
_BATCH_BYTES = 1 << 18
_BITS = 128
# Level 6 takes three times as long, and the file is a tenth smaller.
_LEVEL = 1
# What reading a file that was cut off or changed raises.
_DAMAGES = (EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class Content(BaseModel):
    """The rows of a table: how many lines COPY writes, and a checksum of them in any order."""

    model_config = ConfigDict(frozen=True)

    lines: int
    checksum: int

    def is_that_of(self, other: "Content") -> bool:
        """Whether both have the same lines."""
        return (self.lines, self.checksum) == (other.lines, other.checksum)


class TableContent(Content):
    """A table of a dump; `sequences` has the state of each column that numbers rows."""

    columns: list[str]
    sequences: dict[str, tuple[int, bool]] = {}


class DatabaseContent(BaseModel):
    """A database of a dump, with its revision; tables come after those that they refer to."""

    revision: str
    tables: dict[str, TableContent]


class SecretKeyUse(BaseModel):
    """By which secret keys the API keys of a dump can be read: how many, by fingerprint.

    `unreadable` are those that the installation itself could not read.
    """

    readable: dict[str, int] = {}
    unreadable: int = 0


class Manifest(BaseModel):
    """What a dump holds. `made_at` is an instant by the database's clock."""

    format: int = FORMAT
    made_at: datetime
    version: str
    dagster_version: str
    secret_keys: SecretKeyUse
    databases: dict[str, DatabaseContent]

    @property
    def lines(self) -> int:
        """The rows of all tables."""
        return sum(table.lines for it in self.databases.values() for table in it.tables.values())


class Summing:
    """Passes lines on, and adds them up.

    The checksum is the sum of their hashes: two servers may return the rows in different orders.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._source = lines
        self._lines = 0
        self._sum = 0

    def __iter__(self) -> Iterator[bytes]:
        size = _BITS // 8
        for line in self._source:
            self._lines += 1
            self._sum += int.from_bytes(blake2b(line, digest_size=size).digest(), "big")
            yield line

    @property
    def content(self) -> Content:
        """The sums over the lines so far."""
        return Content(lines=self._lines, checksum=self._sum % (1 << _BITS))


def content_of(lines: Iterable[bytes]) -> Content:
    """The sums over these lines."""
    summing = Summing(lines)
    for _ in summing:
        pass
    return summing.content


def batched(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines, joined to pieces of some size: a write of each line takes much longer."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size > _BATCH_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


class DumpWriter:
    """A dump that is being written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, database: str, table: str, lines: Iterable[bytes]) -> Content:
        """Write the rows of a table, however many; return their sums."""
        summing = Summing(lines)
        # The size is not known yet, and may be more than 2 GiB.
        with self._archive.open(_member(database, table), "w", force_zip64=True) as member:
            for batch in batched(summing):
                member.write(batch)
        return summing.content

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, with which the dump is whole."""
        self._archive.writestr(_MANIFEST, manifest.model_dump_json(indent=1))


@contextmanager
def new_dump(file: Path) -> Iterator[DumpWriter]:
    """Write a dump under another name, read it back, and only then give it its name.

    It is readable by its owner alone. A file of that name is kept until the new one is verified.

    Raises:
        KpiError: if the file can't be written, or reads back as something else.
    """
    draft = file.with_name(f"{file.name}.partial")
    try:
        try:
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.fchmod(descriptor, 0o600)
            with os.fdopen(descriptor, "w+b") as opened:
                packed = zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
                with packed as archive:
                    yield DumpWriter(archive)
                opened.flush()
                os.fsync(opened.fileno())
            with open_dump(draft) as written:
                written.verify()
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise KpiError(
            f"The dump {file} can't be written: {error.strerror}. Check the folder and its disk; "
            "an earlier dump of that name is as it was."
        ) from None


class Dump:
    """A dump that is being read."""

    def __init__(self, file: Path, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.file = file
        self.manifest = manifest
        self._archive = archive

    def lines(self, database: str, table: str) -> Iterator[bytes]:
        """The rows of a table, one after the other.

        Raises:
            KpiError: if they can't be read.
        """
        try:
            with self._archive.open(_member(database, table)) as member:
                yield from io.BufferedReader(cast(io.RawIOBase, member), _BATCH_BYTES)
        except (KeyError, *_DAMAGES):
            raise damaged(self.file) from None

    def verify(self) -> None:
        """Read every row, and compare with the manifest.

        Raises:
            KpiError: if the rows of a table are others.
        """
        for name, database in self.manifest.databases.items():
            for table, wanted in database.tables.items():
                if not wanted.is_that_of(content_of(self.lines(name, table))):
                    raise damaged(self.file)


@contextmanager
def open_dump(file: Path) -> Iterator[Dump]:
    """Open a dump.

    Raises:
        KpiError: if the file is no dump, is damaged, or is one of a newer version of the code.
    """
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            text = archive.read(_MANIFEST)
        except OSError as error:
            raise KpiError(f"The dump {file} can't be read: {error.strerror}. Check it.") from None
        except (KeyError, *_DAMAGES):
            raise damaged(file) from None
        yield Dump(file, archive, _parsed(file, text))


def is_dump(file: Path) -> bool:
    """Whether this file is a whole dump, of any version."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _MANIFEST in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def damaged(file: Path) -> KpiError:
    """The error of a file that is no whole dump."""
    return KpiError(
        f"{file} is no whole dump: it was cut off, changed, or is another file. Nothing was "
        "restored. Take another one."
    )


def _parsed(file: Path, text: bytes) -> Manifest:
    try:
        if (found := json.loads(text)["format"]) != FORMAT:
            raise KpiError(
                f"{file} is a dump of format {found}, and this version of the code reads format "
                f"{FORMAT}. Install the version that made it."
            )
        return Manifest.model_validate_json(text)
    except (ValueError, LookupError, TypeError):
        raise damaged(file) from None


def _member(database: str, table: str) -> str:
    return f"{database}/{table}.txt"
