"""An operator's first hour: a real Email Bison, an empty PostgreSQL behind a pooler, and commands.

Every command is one that the command before it, or the README, says to run next.
"""

import csv
import html
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from dotenv import dotenv_values
from sqlalchemy import URL

from kpi_pipeline.services.servers import sandbox_server
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.cli.running import calm_zone, wait_until
from kpi_pipeline_tests.databases import administer
from kpi_pipeline_tests.end_to_end.up import KPI, Up
from kpi_pipeline_tests.installed_postgres import installed_postgres
from kpi_pipeline_tests.pgbouncer import pooling

# Two minutes of processor time, and four on the clock.
pytestmark = [
    *(pytest.mark.long, pytest.mark.weekly, pytest.mark.server),
    pytest.mark.timeout(900),
]

_ROLE, _PASSWORD = "plain", "its-Made-Up-w0rd"


@dataclass
class Operator:
    """Somebody in a folder of a new machine, with a shell and a `.env`."""

    folder: Path
    bison: str
    master_key: str
    pooled: str
    direct: str
    printed: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """No setting but those in the folder's `.env`."""
        return {name: it for name, it in os.environ.items() if not name.startswith("KPI_")}

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run `kpi` in the folder; what it printed as its answer."""
        done = subprocess.run(
            [*KPI, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.printed += [done.stdout, done.stderr]
        assert done.returncode in codes, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def fill_in(self, file: Path) -> list[dict[str, str]]:
        """Give each client of the file its targets."""
        rows = list(csv.DictReader(file.read_text().splitlines()))
        for row in rows:
            row |= {"monthly_kpi_target": "10", "monthly_sending_target": "1000"}
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return rows

    def doctor(self) -> dict[str, Any]:
        """What `kpi doctor` finds, for programs."""
        found = json.loads(self.run("doctor", "--json", codes=(0, 1, 2)))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def operator(state: Path, receiver: Receiver) -> Iterator[Operator]:
    """Nothing is installed yet but PostgreSQL and its pooler, with a role that may do little."""
    folder = state.parent / "folder"
    folder.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(installed_postgres())
        administer(server, f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}'")
        administer(server, "CREATE DATABASE agency")
        administer(server, f"GRANT CREATE ON DATABASE agency TO {_ROLE}")
        pooler = stack.enter_context(pooling(server, auth_type="scram-sha-256"))
        base = Settings(state_dir=state.parent / "sandbox")
        options = {"clients": 3, "calls-per-second": 0, "latency": 0.01}
        url, sandbox = sandbox_server(base, dict(os.environ), options)
        stack.enter_context(sandbox).await_answer()
        master_key = httpx.get(f"{url}/sandbox/setup", timeout=30).json()["master_key"]
        (folder / ".env").write_text(
            f"# Of this machine\nKPI_STATE_DIR={state}\nKPI_GATEWAY_PORT={_free_port()}\n"
            "KPI_WEB_PORT=0\nKPI_DASHBOARD_PORT=0\n"
            f"KPI_ALERT_URLS={receiver.url.replace('http', 'json', 1)}/alerts\n"
        )
        yield Operator(
            folder,
            url,
            master_key,
            _text(pooler.url("agency", _ROLE, _PASSWORD)),
            _text(server.set(database="agency", username=_ROLE, password=_PASSWORD)),
        )


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


def _text(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def up(operator: Operator, state: Path) -> Iterator[list[Up]]:
    """`kpi up`, once the test has set it up and puts it in the list; ended as Ctrl-C ends it."""
    started: list[Up] = []
    yield started
    for it in started:
        it.process.send_signal(signal.SIGINT)
        try:
            it.process.wait(120)
        finally:
            it.process.kill()


def _start_up(operator: Operator, state: Path) -> Up:
    output = state.parent / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [*KPI, "up"],
            cwd=operator.folder,
            env=operator.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        return Up(process, state, output)
    except BaseException:
        process.kill()
        raise


def test_an_operator_sets_up_moves_in_and_finds_all_well(
    operator: Operator, up: list[Up], state: Path, receiver: Receiver
) -> None:
    (operator.folder / "key").write_text(operator.master_key)
    port = dotenv_values(operator.folder / ".env")["KPI_GATEWAY_PORT"]
    gateway = f"http://127.0.0.1:{port}"
    words = {
        "--bison-url": operator.bison,
        "--master-key-file": "key",
        "--database-url": operator.pooled,
        "--direct-url": operator.direct,
        "--schema": "kpi",
        "--timezone": calm_zone().key,
        "--public-url": gateway,
    }
    said = operator.run("init", *(word for pair in words.items() for word in pair))
    commands = [line.strip() for line in said.splitlines() if line.startswith("  kpi ")]
    steps = [it.strip().split()[1:] for line in commands for it in line.split("&&")]
    assert steps == [
        ["clients", "import", "clients.csv"],
        ["keys", "create-missing"],
        ["bison", "measure"],
        ["webhooks", "register"],
        ["up"],
    ]

    clients = operator.fill_in(operator.folder / "clients.csv")
    for step in steps[:-1]:
        operator.run(*step)
    up.append(_start_up(operator, state))
    operator.run("sync")

    numbers = _leads(up[0])
    assert set(numbers) == {row["name"] for row in clients}
    first = clients[0]
    marked = {"workspace_id": int(first["bison_workspace_id"]), "leads": 1, "deliver": True}
    httpx.post(f"{operator.bison}/sandbox/mark-interested", json=marked, timeout=60)
    wait_until(
        lambda: _leads(up[0])[first["name"]] > numbers[first["name"]],
        "a positive reply on the dashboard",
        seconds=90,
        every=0.5,
        details=lambda: (numbers, _leads(up[0])),
    )
    page = httpx.get(f"{up[0].dashboard}/", timeout=60)
    assert page.status_code == 200
    assert first["name"] in html.unescape(page.text)

    operator.run("db", "dump", str(state.parent / "agency.dump"))
    found: dict[str, Any] = {}
    # After a sync the data are checked again, now that a webhook has come.
    operator.run("sync")

    def is_well() -> bool:
        found.update(operator.doctor())
        # This agency has clients with few replies: the operator does what the doctor says.
        few = _few_replies(found)
        for client in few:
            operator.run("clients", "thresholds", client, "--min-reply-rate", "0")
        if few:
            operator.run("sync")
        return not _bad(found)

    wait_until(is_well, "all well", seconds=300, every=5, details=lambda: _bad(found))
    assert operator.run("doctor").endswith("All is well.\n")
    everything = "".join([*operator.printed, up[0].output.read_text()])
    secrets = (dotenv_values(operator.folder / ".env")["KPI_WEBHOOK_SECRET_MAIN"] or "",)
    for secret in (operator.master_key, _PASSWORD, *secrets):
        assert secret
        assert secret not in everything


def _bad(found: dict[str, Any]) -> list[Any]:
    return [it for it in found.get("findings", []) if it["verdict"] not in ("ok", "not_checked")]


def _few_replies(found: dict[str, Any]) -> list[str]:
    of_checks = [it for it in _bad(found) if it["check"] == "checks"]
    return [client for it in of_checks if "reply_rate" in it["text"] for client in it["clients"]]


def _leads(up: Up) -> dict[str, int]:
    """This month's positive replies of each client, as the dashboard tells programs."""
    answer = httpx.get(f"{up.dashboard}/api/client-metrics", timeout=60)
    rows = sorted(answer.raise_for_status().json()["rows"], key=lambda it: it["metric_date"])
    return {it["display_name"]: it["positive_replies_mtd"] for it in rows}
