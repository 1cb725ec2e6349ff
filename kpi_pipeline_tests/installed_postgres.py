"""A PostgreSQL server of the operating system's package, which is another version than ours."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

_PACKAGES = Path("/usr/lib/postgresql")
SUPERUSER = "postgres"


@contextmanager
def installed_postgres(**options: object) -> Iterator[URL]:
    """Run an empty server of the newest installed version on a port of its own.

    The address is that of its superuser. It asks every role for a password but the superuser.
    `options` are lines of postgresql.conf.
    """
    found = sorted(_PACKAGES.glob("*/bin/postgres"), key=lambda it: int(it.parts[-3]))
    if not found:
        assert os.environ.get("KPI_TEST_POOLER") != "required", "no PostgreSQL is installed"
        pytest.skip("no package of PostgreSQL is installed")
    programs = found[-1].parent
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="kpi-pg-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [str(programs / program), "-D", str(data), *words],
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
        )

    try:
        run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", SUPERUSER)
        (data / "pg_hba.conf").write_text(
            f"local all all trust\nhost all {SUPERUSER} 127.0.0.1/32 trust\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port: int = free.getsockname()[1]
        lines = {
            "listen_addresses": "'127.0.0.1'",
            "port": port,
            "unix_socket_directories": f"'{folder}'",
            "fsync": "off",
            "full_page_writes": "off",
            **options,
        }
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in lines.items())
        run("pg_ctl", "-w", "-l", str(folder / "log"), "start")
        try:
            yield URL.create(
                "postgresql+psycopg", SUPERUSER, None, "127.0.0.1", port, database="postgres"
            )
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
