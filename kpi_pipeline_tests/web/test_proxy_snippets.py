"""The proxies' own programs read the snippets of the documents, where they are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kpi_pipeline_tests import PROJECT_ROOT


def snippet(language: str) -> str:
    text = (PROJECT_ROOT / "docs" / "pages.md").read_text()
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def program(name: str) -> str:
    # Debian has nginx where only root looks for programs.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def accepts(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_nginx_reads_its_snippet(tmp_path: Path) -> None:
    folders = "".join(
        f"{kind}_temp_path {tmp_path / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"pid {tmp_path / 'pid'}; events {{}} http {{ access_log off; {folders}\n"
        f"server {{ listen 127.0.0.1:8443;\n{snippet('nginx')}\n}} }}"
    )
    accepts(program("nginx"), "-t", "-c", str(file), "-e", str(tmp_path / "error.log"))


def test_caddy_reads_its_snippet(tmp_path: Path) -> None:
    file = tmp_path / "Caddyfile"
    file.write_text(snippet("caddy"))
    accepts(program("caddy"), "adapt", "--config", str(file))
