from importlib.metadata import version

import pytest
import typer
from cryptography.fernet import Fernet

from kpi_pipeline.cli.main import commands
from kpi_pipeline_tests.cli.running import Kpi

OPTIONS = {
    "": ["--demo", "--version", "--install-completion", "--show-completion"],
    "accuracy": ["--months", "--workspace", "-w", "--format"],
    "alerts": [],
    "alerts list": [],
    "alerts mute": ["CLIENT|CHECK", "--for"],
    "alerts test": [],
    "alerts unmute": ["CLIENT|CHECK"],
    "backfill": ["--from", "--to", "--workspace", "-w", "--follow"],
    "bison": [],
    "bison measure": ["--workspace", "-w"],
    "clients": [],
    "clients export": [],
    "clients import": ["FILE.csv", "--targets-from", "--dry-run", "--yes"],
    "clients list": [],
    "clients template": [],
    "clients thresholds": ["CLIENT", "--max-sending-shortfall", "--min-reply-rate"],
    "dagster": [],
    "dagster alive": [],
    "dagster code-server": ["--listen"],
    "dagster daemon": ["--code-server"],
    "dagster page": ["--code-server"],
    "dagster rebuild": ["--dry-run"],
    "dashboard": ["--host", "--port"],
    "db": [],
    "db downgrade": ["--yes"],
    "db dump": ["FILE|FOLDER", "--keep"],
    "db grant-reader": ["ROLE", "--web-api"],
    "db restore": [
        *("[FILE]", "--from-embedded", "--check", "--replace"),
        *("--without-api-keys", "--without-dagster"),
    ],
    "db revoke-reader": ["ROLE"],
    "db upgrade": [],
    "doctor": ["[CHECK]", "--json", "--fix", "--send-alert", "--list"],
    "demo": ["--once", "--days", "--port"],
    "events": [],
    "events ingest": ["FILE", "--instance"],
    "events list": ["--status", "--workspace", "-w", "--since", "--limit"],
    "events purge": ["--older-than-days"],
    "events recover": ["--since", "--workspace", "-w"],
    "events replay": ["--since", "--workspace", "-w", "--status"],
    "export": ["--from", "--to", "--workspace", "-w", "--out", "--format", "--force"],
    "gateway": ["--host", "--port"],
    "init": [
        *("--instance", "--bison-url", "--master-key-file", "--database-url", "--direct-url"),
        *("--schema", "--timezone", "--public-url", "--clients"),
    ],
    "keys": [],
    "keys check": ["--workspace", "-w"],
    "keys create-missing": ["--workspace", "-w", "--dry-run"],
    "keys list": [],
    "keys rotate": ["WORKSPACE"],
    "metrics": ["--date", "--workspace", "-w", "--format"],
    "migrate-from": [
        *("URL", "--schema", "--instance", "--targets-from", "--keys", "--differences"),
        *("--dry-run", "--replace", "--incomplete"),
    ],
    "recompute": ["--from", "--to", "--workspace", "-w", "--adopt-timezone"],
    "sandbox": [
        *(
            "--port",
            "--clients",
            "--seed",
            "--calls-per-second",
            "--longest-queue",
            "--latency",
            "--today",
        ),
        *("--first-workspace-id", "--variant", "--fault", "--live", "--live-pace"),
    ],
    "secret-key": [],
    "secret-key new": [],
    "secret-key rotate": [],
    "summary": ["--date"],
    "status": ["--format"],
    "sync": ["--date", "--workspace", "-w"],
    "up": [],
    "users": [],
    "users add": ["NAME", "--role", "--password-stdin", "--no-password"],
    "users list": [],
    "users password": ["NAME", "--password-stdin", "--no-password"],
    "users remove": ["NAME"],
    "users revoke": ["NAME", "--label"],
    "users role": ["NAME", "ROLE"],
    "users token": ["NAME", "--label"],
    "users tokens": ["NAME"],
    "webhook-secret": [],
    "webhooks": [],
    "webhooks register": ["--workspace", "-w", "--dry-run", "--delete-dead"],
    "webhooks test": ["--workspace", "-w"],
    "webhooks unregister": ["--workspace", "-w", "--dry-run"],
    "webhooks verify": ["--workspace", "-w"],
}


def _commands(group: typer.Typer, path: str = "") -> dict[str, list[str]]:
    """Each command of the code, by what a user types, with the names of its options."""
    from typer.main import get_command

    found: dict[str, list[str]] = {}

    def walk(command: object, path: str) -> None:
        found[path] = [
            name
            for parameter in command.params  # type: ignore[attr-defined]
            for name in parameter.opts
            if name.startswith("-")
        ]
        for name, below in getattr(command, "commands", {}).items():
            walk(below, f"{path} {name}".strip())

    walk(get_command(group), path)
    return found


@pytest.mark.parametrize("command", OPTIONS)
def test_the_help_of_a_command_names_each_option(kpi: Kpi, command: str) -> None:
    screen = kpi(*command.split(), "--help").answer()
    assert kpi(*command.split(), "-h").answer() == screen
    words = screen.split()
    for option in OPTIONS[command]:
        assert any(option in word for word in words), f"{option} is not in {screen}"


def test_no_command_and_no_option_is_missing_above() -> None:
    flags = {
        path: [name for name in names if name.startswith("-")] for path, names in OPTIONS.items()
    }
    in_code = {
        path: [name for name in names if name != "--help"]
        for path, names in _commands(commands).items()
    }
    assert in_code == flags


def test_a_command_that_does_not_exist_is_a_usage_error(kpi: Kpi) -> None:
    result = kpi("snyc")
    assert (result.code, result.out) == (2, "")
    assert "No such command 'snyc'" in result.err


def test_the_version_needs_no_settings(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_TIMEZON", "Asia/Kolkata")
    assert kpi("--version").answer() == f"kpi_pipeline {version('kpi-pipeline')}\n"


def test_a_shell_completes_commands(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_KPI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "kpi cli")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert kpi().answer().split() == ["clients"]


def test_a_secret_key_is_a_fresh_fernet_key_and_nothing_else(kpi: Kpi) -> None:
    first, second = kpi("secret-key").answer(), kpi("secret-key").answer()
    assert first != second
    for key in (first, second):
        assert key.endswith("\n")
        assert Fernet(key.strip()).decrypt(Fernet(key.strip()).encrypt(b"x")) == b"x"
