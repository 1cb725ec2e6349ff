import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from kpi_pipeline_tests.cli.running import Kpi, ended, kpi_in_a_process, taken_port


def test_up_refuses_a_port_in_use_before_it_starts_anything(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    with taken_port() as port:
        monkeypatch.setenv("KPI_WEB_PORT", port)
        error = kpi("up").error()
    assert error.startswith(f"Port {port} on 127.0.0.1 is in use by ")
    assert "KPI_WEB_PORT" in error
    assert not list(tmp_path.iterdir())


def test_the_demo_refuses_a_port_in_use_before_it_starts_anything(kpi: Kpi, tmp_path: Path) -> None:
    with taken_port() as port:
        error = kpi("demo", "--port", port).error()
    assert error.startswith(f"Port {port} on 127.0.0.1 is in use by ")
    assert "--port" in error
    assert not list(tmp_path.iterdir())


def test_the_sandbox_refuses_a_port_in_use(kpi: Kpi) -> None:
    with taken_port() as port:
        error = kpi("sandbox", "--port", port).error()
    assert f"Port {port} of 127.0.0.1 is already in use" in error
    assert "another port" in error


@pytest.mark.parametrize(
    "words",
    [
        ("sandbox", "--clients", "0"),
        ("sandbox", "--latency", "-1"),
        ("sandbox", "--today", "18.3.2026"),
        ("demo", "--days", "0"),
    ],
)
def test_an_option_out_of_range_is_a_usage_error(kpi: Kpi, words: tuple[str, ...]) -> None:
    result = kpi(*words)
    assert (result.code, result.out) == (2, "")
    assert words[1] in result.err


def test_up_without_an_email_bison_names_the_setting_and_the_demo(kpi: Kpi, tmp_path: Path) -> None:
    error = kpi("up").error()
    assert "set KPI_BISON_INSTANCES to `NAME https://HOST MASTER_KEY`." in error
    assert "`kpi demo`" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.server
def test_sigterm_ends_the_sandbox_quietly() -> None:
    with kpi_in_a_process("sandbox", "--port", "0", "--clients", "3") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(
            r"Sandbox Email Bison at (http://127\.0\.0\.1:(\d+)) \(3 workspaces\)\n", line
        )
        assert found, line
        assert len(httpx.get(f"{found[1]}/sandbox/clients.csv").text.strip().splitlines()) == 4
        process.send_signal(signal.SIGTERM)
        result = ended(process)
    assert (result.code, result.err) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[2])), timeout=5)
