import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, Engine, Table, select

from kpi_pipeline.cli.main import main
from kpi_pipeline.domain.calendar import business_date

# A password that a server with authentication would require.
PASSWORD = "made-up-PaSsWoRd"


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The error that ended a command: a plain sentence, and no other output."""
        assert self.code == 1, self
        assert self.out == "", self
        assert self.err.startswith("Error: "), self
        assert self.err.count("Error: ") == 1, self
        assert "Traceback" not in self.err, self
        return self.err.removeprefix("Error: ").strip()

    def answer(self) -> str:
        """What a successful command printed."""
        assert self.code == 0, self
        return self.out


class Kpi:
    """The `kpi` command, run in this process with this process's environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Result:
        # A command changes its process for good: its environment, and what a signal does.
        environment = dict(os.environ)
        handler = signal.getsignal(signal.SIGTERM)
        arguments = sys.argv
        self._capsys.readouterr()
        try:
            sys.argv = ["kpi", *words]
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            sys.argv = arguments
            signal.signal(signal.SIGTERM, handler)
            os.environ.clear()
            os.environ.update(environment)
        printed = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, printed.out, printed.err)


@contextmanager
def kpi_in_a_process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The `kpi` command as a user starts it, with the environment of the test."""
    command = [sys.executable, "-m", "kpi_pipeline.cli.main", *words]
    with subprocess.Popen(
        command,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def launched(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The id of a command's backfill, and the rest of that line, once the command prints it."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.match(r"Backfill (\w+): (.*)", line):
            return found[1], found[2]
    raise AssertionError("no backfill was launched")


def ended(process: subprocess.Popen[str], seconds: float = 180) -> Result:
    """Wait for the end of a command; its result."""
    out, err = process.communicate(timeout=seconds)
    return Result(process.returncode, out, err)


def address(url: URL) -> str:
    """A database address as an operator writes it into KPI_DATABASE_URL, password and all."""
    plain = url.set(drivername="postgresql", password=PASSWORD)
    return plain.render_as_string(hide_password=False)


@contextmanager
def taken_port() -> Iterator[str]:
    """A port of this machine on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


def closed_port() -> str:
    """A port of this machine on which nothing listens."""
    with taken_port() as port:
        return port


def calm_zone() -> ZoneInfo:
    """A business time zone in which midnight is hours away: a command's clock is the real one."""
    return ZoneInfo("America/Chicago" if datetime.now(UTC).hour >= 12 else "Asia/Tokyo")


def days_ago(days: int) -> date:
    """The business date so many days before a command's today."""
    return business_date(datetime.now(UTC), calm_zone()) - timedelta(days=days)


def rows_of(engine: Engine, *tables: Table) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Every row of these tables, by the table's name."""
    with engine.connect() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in tables
        }


def cells(screen: str, first: str) -> list[str]:
    """The cells of that row of a printed table that begins with `first`."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in screen.splitlines()
        if line.startswith("│")
    ]
    (row,) = [row for row in rows if row[0] == first]
    return row


def written(file: Path, *lines: str) -> str:
    """Write a text file; its path."""
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def wait_until(
    ready: Callable[[], bool],
    what: str,
    seconds: float = 60,
    every: float = 0.02,
    details: Callable[[], object] = str,
) -> None:
    """Poll until `ready` holds; show the details if it does not in time."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s: {details()}"
        time.sleep(every)
