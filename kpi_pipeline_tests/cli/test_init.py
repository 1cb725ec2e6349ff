"""`kpi init`: what it asks, tests, writes, and never prints."""

import os
import pty
import re
import select
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from dotenv import dotenv_values
from sqlalchemy import URL, NullPool, create_engine

from kpi_pipeline.cli.questions import Questions
from kpi_pipeline.db.registry.clients_csv import read_file
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import PASSWORD, Kpi, Result, address, closed_port, written
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.pgbouncer import Pooler

OURS = "# Ours\nKPI_ALERT_URLS=json://127.0.0.1:9/alerts\nOTHER=kept\n"
WRONG_KEY = f"17|{'abcDEFghi123' * 4}"


@pytest.fixture
def agency(stage: Stage) -> Iterator[Bison]:
    """A new instance of three workspaces."""
    with bison_on(stage, options(clients=3)) as fresh:
        yield fresh


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of an operator who has not set anything yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KPI_ENV_FILE")
    return tmp_path


@pytest.fixture
def words(
    agency: Bison, database: URL, dagster_database: URL, folder: Path, kpi: Kpi
) -> Sequence[str]:
    """The options of a set-up in which everything is right; both databases have their tables."""
    key = written(folder / "key", agency.master_key)
    return (
        *("--bison-url", instance_of(agency).url, "--master-key-file", key),
        *("--database-url", address(database), "--timezone", "Europe/Berlin"),
        *("--public-url", f"http://127.0.0.1:{closed_port()}"),
    )


def _with(words: Sequence[str], option: str, value: str) -> list[str]:
    place = list(words).index(option) + 1
    return [*words[:place], value, *words[place + 1 :]]


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _no_secret_in(result: Result, *secrets: str) -> None:
    for secret in (PASSWORD, *secrets, *(it.partition("|")[2] for it in secrets)):
        assert not secret or secret not in result.out + result.err


def test_it_writes_settings_and_workspaces_and_says_what_comes_next(
    kpi: Kpi, words: Sequence[str], agency: Bison, folder: Path, database: URL
) -> None:
    result = kpi("init", *words)
    answer = result.answer()
    values = dotenv_values(folder / ".env")
    assert values | {"KPI_WEBHOOK_SECRET_MAIN": None} == {
        "KPI_BISON_INSTANCES": f"main {instance_of(agency).url} {agency.master_key}",
        "KPI_DATABASE_URL": address(database),
        "KPI_TIMEZONE": "Europe/Berlin",
        "KPI_GATEWAY_URL": words[-1],
        "KPI_WEBHOOK_SECRET_MAIN": None,
    }
    assert (_mode(folder / ".env"), _mode(folder / "clients.csv")) == (0o600, 0o600)
    rows = read_file(folder / "clients.csv", ["main"])
    assert {it.bison_workspace_id for it in rows} == {
        int(it["bison_workspace_id"]) for it in agency.clients()
    }
    for it in agency.clients():
        assert it["name"].strip() in answer
    assert answer.splitlines()[-4:] == [
        "  kpi clients import clients.csv",
        "  kpi keys create-missing && kpi bison measure && kpi webhooks register",
        "  kpi up",
        "`kpi doctor` says what is still missing.",
    ]
    _no_secret_in(result, agency.master_key, values["KPI_WEBHOOK_SECRET_MAIN"] or "")


def test_a_second_run_needs_no_option_and_changes_nothing(
    kpi: Kpi, words: Sequence[str], folder: Path
) -> None:
    (folder / ".env").write_text(OURS)
    kpi("init", *words).answer()
    # What it says to run next works with what it wrote.
    assert "3 clients imported: 3 new" in kpi("clients", "import", "clients.csv").answer()
    before = [(folder / name).read_bytes() for name in (".env", "clients.csv")]
    assert before[0].startswith(OURS.encode())
    answer = kpi("init").answer()
    assert f"{folder / '.env'} stays as it is (mode 600)." in answer
    assert "clients.csv stays as it is" in answer
    assert [(folder / name).read_bytes() for name in (".env", "clients.csv")] == before


def test_another_instance_is_added_and_the_first_stays(
    kpi: Kpi, words: Sequence[str], agency: Bison, folder: Path
) -> None:
    (folder / ".env").write_text("KPI_BISON_INSTANCES=first https://bison.first.example\n")
    kpi("init", "--instance", "second", *words).answer()
    assert dotenv_values(folder / ".env")["KPI_BISON_INSTANCES"] == (
        f"first https://bison.first.example, second {instance_of(agency).url} {agency.master_key}"
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--bison-url", "http://127.0.0.1:1", "gives no answer: ConnectError"),
        ("--bison-url", "bison.agency.example", "write it as https://HOST"),
        ("--master-key-file", "wrong", "Email Bison rejects the key (answered 401"),
        ("--master-key-file", "missing", "missing can't be read as text"),
        ("--database-url", f"mysql://kpi:{PASSWORD}@127.0.0.1/kpi", "needs PostgreSQL"),
        (
            "--database-url",
            f"postgresql://kpi:{PASSWORD}@127.0.0.1:1/kpi",
            "Connection refused",
        ),
        ("--timezone", "Europe/Berlim", "Did you mean Europe/Berlin"),
        ("--public-url", "https://kpi.example/webhooks", "more than scheme and host"),
    ],
)
def test_a_wrong_answer_is_named_and_nothing_is_written(
    kpi: Kpi, words: Sequence[str], folder: Path, option: str, value: str, message: str
) -> None:
    (folder / ".env").write_text(OURS)
    written(folder / "wrong", WRONG_KEY)
    result = kpi("init", *_with(words, option, value))
    assert result.code == 1
    assert message in result.err
    assert (folder / ".env").read_text() == OURS
    assert not (folder / "clients.csv").exists()
    _no_secret_in(result, WRONG_KEY)


def test_without_a_terminal_it_names_the_option_that_is_missing(kpi: Kpi, folder: Path) -> None:
    assert "Give --bison-url." in kpi("init").error()
    assert list(folder.iterdir()) == []


def test_without_a_super_admin_key_and_a_public_address_it_says_what_that_means(
    kpi: Kpi, words: Sequence[str], folder: Path
) -> None:
    written(folder / "key", "none")
    result = kpi("init", *_with(words, "--public-url", "none"))
    answer = result.answer()
    assert "each client needs an API key of its own" in result.err
    assert "`kpi clients template > clients.csv`" in answer
    assert "webhooks register" not in answer
    assert "create-missing" not in answer
    assert "KPI_GATEWAY_URL" not in dotenv_values(folder / ".env")


def test_what_the_environment_says_otherwise_is_warned_of(
    kpi: Kpi, words: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_TIMEZONE", "Asia/Tokyo")
    monkeypatch.setenv("KPI_GATEWAY_URL", "")
    assert "The environment has another KPI_TIMEZONE, and" in kpi("init", *words).err


def test_data_of_the_embedded_database_are_brought_over_before_anything_is_made(
    kpi: Kpi, words: Sequence[str], folder: Path, tmp_path: Path, postgres: URL
) -> None:
    (tmp_path / "state" / "postgres").mkdir(parents=True)
    new = address(postgres.set(database="kpi_of_nobody_yet"))
    answer = kpi("init", *_with(words, "--database-url", new)).answer()
    assert "kpi db restore --from-embedded" in answer
    assert dotenv_values(folder / ".env")["KPI_DATABASE_URL"] == new
    assert not (folder / "clients.csv").exists()


def test_the_demo_is_not_set_up(kpi: Kpi, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "state" / "demo").mkdir(parents=True)
    (tmp_path / "state" / "demo" / "demo.env").touch()
    assert "The demo needs no set-up" in kpi("--demo", "init").error()


@pytest.fixture
def old_system(postgres: URL, administer: Callable[[str], None]) -> Iterator[URL]:
    """A database in which another system has a table of our name."""
    url = postgres.set(database=f"kpi_{uuid.uuid4().hex}")
    administer(f"CREATE DATABASE {url.database}")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE client_metrics (client text)")
    yield url
    administer(f"DROP DATABASE {url.database} WITH (FORCE)")


def test_before_an_old_system_and_behind_a_pooler_it_asks_for_a_schema_and_the_direct_address(
    kpi: Kpi,
    words: Sequence[str],
    old_system: URL,
    pgbouncer: Pooler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "PostgreSQL": address(pgbouncer.through(old_system)),
        "A pooler is before it": address(old_system),
        "Schema for the KPI tables [kpi]": "",
    }
    asked = []

    def type_in(_: Questions, label: str, *, hidden: bool) -> str:
        asked.append(label)
        for beginning, answer in answers.items():
            if label.startswith(beginning):
                return answer
        # Ctrl-C, at the question after those about the database.
        raise KeyboardInterrupt

    monkeypatch.setattr(Questions, "line", type_in)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    options = [*words[:4], "--instance", "main"]
    result = kpi("init", *options)
    assert result.code == 130
    assert "has a table client_metrics of another system" in result.err
    assert "tables: none yet." in result.out
    assert [it.partition(" (")[0] for it in asked] == [
        "PostgreSQL",
        "A pooler is before it. Its address without the pooler",
        "Schema for the KPI tables [kpi]",
        "Your time zone [America/Chicago]",
    ]
    _no_secret_in(result)


class Terminal:
    """`kpi` on a terminal of its own, with somebody who types."""

    def __init__(self, *arguments: str) -> None:
        self.screen = ""
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.execv(sys.executable, [sys.executable, "-m", "kpi_pipeline.cli.main", *arguments])

    def answer(self, question: str, text: str) -> None:
        """Type a line once the question is on the screen, in however many lines."""
        wanted = "".join(question.split())

        def asked() -> bool:
            # The blank at the end comes once what is hidden is hidden.
            whole = self.screen.endswith(("]: ", "): "))
            return whole and wanted in "".join(self.screen.split())

        self._read_until(asked)
        self.screen = ""
        os.write(self._terminal, f"{text}\n".encode())

    def end(self) -> int:
        """The exit code; `screen` has what came after the last answer."""
        self._read_until(lambda: False)
        _, status = os.waitpid(self._process, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)

    def _read_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            readable, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert readable, self.screen
            try:
                data = os.read(self._terminal, 4096)
            except OSError:
                # Linux says so of a terminal whose last process has ended.
                return
            self.screen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))


@pytest.mark.server
def test_on_a_terminal_it_asks_again_until_an_answer_is_right(
    words: Sequence[str], agency: Bison, folder: Path, database: URL
) -> None:
    terminal = Terminal("init")
    everything = ""

    def answer(question: str, text: str) -> None:
        nonlocal everything
        terminal.answer(question, text)
        everything += terminal.screen

    answer("Name of the Email Bison instance [main]", "")
    answer("Its address", "bison.example")
    answer("write it as https://HOST.\nIts address", instance_of(agency).url)
    answer("super-admin key (hidden", WRONG_KEY)
    answer("rejects the key", agency.master_key)
    without_password = database.set(drivername="postgresql", password=None).set(username="postgres")
    answer("[embedded]", without_password.render_as_string(hide_password=False))
    answer("Password of postgres (hidden", PASSWORD)
    answer("Your time zone [America/Chicago]", "Berlin")
    answer("Did you mean Europe/Berlin?", "Europe/Berlin")
    answer("Public address", "")
    assert terminal.end() == 0, terminal.screen
    everything += terminal.screen
    assert "kpi up" in terminal.screen
    for secret in (WRONG_KEY, agency.master_key, PASSWORD):
        assert secret not in everything
    values = dotenv_values(folder / ".env")
    assert agency.master_key in (values["KPI_BISON_INSTANCES"] or "")
    assert f":{PASSWORD}@" in (values["KPI_DATABASE_URL"] or "")
    assert values["KPI_TIMEZONE"] == "Europe/Berlin"
