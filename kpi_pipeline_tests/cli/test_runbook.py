"""Each command of the README and the runbook is executed: here, or by the test that is named."""

import getpass
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.cli.running import Kpi
from kpi_pipeline_tests.test_documentation import read
from kpi_pipeline_tests.test_documented_commands import fenced, inline

# What starts servers, waits for them, asks questions, or leaves no installation behind to go on
# with; each with the file of tests that executes it.
ELSEWHERE = {
    "alerts test": "cli/test_alerts.py",
    "backfill": "cli/test_backfill.py",
    "dagster code-server": "cli/test_dagster_parts.py",
    "dagster daemon": "cli/test_dagster_parts.py",
    "dagster page": "cli/test_dagster_parts.py",
    "dashboard": "cli/test_dashboard_log.py",
    "db downgrade": "cli/test_downgrade.py",
    "db restore": "cli/test_backup.py",
    "demo": "test_wheel.py",
    "doctor": "services/doctor/test_doctor.py",
    "gateway": "cli/test_gateway.py",
    "init": "cli/test_init.py",
    "migrate-from": "cli/test_migrate_from.py",
    "sandbox": "bison_sandbox/test_command_line.py",
    "sync": "cli/test_sync.py",
    "up": "cli/test_up.py",
    "webhooks test": "cli/test_webhooks.py",
}
# What `kpi status` says of the installation.
_VERDICTS = {"status": {0, 1, 2}}


def documented() -> list[list[str]]:
    """The commands of both documents, each once, in the order in which they stand there."""
    texts = [read(it) for it in ("README.md", "docs/operations.md")]
    found = [" ".join(it) for text in texts for it in (*fenced(text), *inline(text))]
    return [it.split() for it in dict.fromkeys(found)]


def name_of(words: list[str]) -> str:
    """The words that name the command: those of ELSEWHERE, else all."""
    line = " ".join(words)
    return next((it for it in ELSEWHERE if f"{line} ".startswith(f"{it} ")), line)


def test_each_command_that_is_not_executed_here_is_executed_by_the_test_that_is_named() -> None:
    tests = PROJECT_ROOT / "kpi_pipeline_tests"
    named = {name_of(it) for it in documented()} & ELSEWHERE.keys()
    for name in named:
        text_of_the_tests = (tests / ELSEWHERE[name]).read_text()
        assert all(f'"{it}"' in text_of_the_tests for it in name.split()), name


@pytest.mark.long
@pytest.mark.usefixtures("imported")
def test_each_other_command_of_the_documents_succeeds(
    kpi: Kpi,
    engine: Engine,
    administer: Callable[[str], None],
    clients_csv: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("runbook")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KPI_GATEWAY_URL", "https://kpi.example")
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", "a-secret-of-these-tests-alone")
    monkeypatch.setattr(getpass, "getpass", lambda *_: "a password of the tests")
    role = f"reader_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {role}")
    (folder / "clients.csv").write_text(clients_csv.read_text())
    event = PROJECT_ROOT / "kpi_pipeline_tests" / "cases" / "event_bounced_type_bounce.json"
    with engine.connect() as connection:
        keyed = connection.scalar(text("SELECT min(workspace) FROM client_api_keys"))
    stand_ins = {
        "acme": keyed,
        "acme:plausible": f"{keyed}:plausible",
        "bi": role,
        "FILE": str(event),
        "FOLDER": str(folder),
        "/backups/": str(folder),
        "/backups/kpi.zip": str(folder / "kpi.zip"),
    }
    today = datetime.now(UTC).date()
    executed, failed = 0, {}
    kpi("users", "add", "ann", "--role", "viewer").answer()
    kpi("users", "token", "ann", "--label", "reports").answer()
    for words in documented():
        if name_of(words) in ELSEWHERE or words[:3] == ["users", "add", "ann"]:
            continue
        arguments = [str(stand_ins.get(it, it)) for it in words]
        days = [it for it in arguments if re.fullmatch(r"\d{4}-\d\d-\d\d", it)]
        for back, day in enumerate(reversed(days), 2):
            arguments[arguments.index(day)] = str(today - timedelta(days=back))
        result = kpi(*arguments)
        executed += 1
        # The mere name of a command, within a sentence.
        if result.code == 2 and "Missing argument" in result.err:
            continue
        if result.code not in _VERDICTS.get(words[0], {0}):
            failed[" ".join(words)] = result.err or result.out
    assert failed == {}
    assert executed > 40
