"""PgBouncer in transaction mode before a PostgreSQL of the tests, as hosts run such poolers.

Each transaction of a client may get another connection to the server, so nothing of a session
stays: no prepared statement, no setting, no lock, no LISTEN.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.guard import RUN

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_START_SECONDS = 30.0


class Pooler:
    """A running PgBouncer; `log` is what it wrote."""

    def __init__(self, server: URL, port: int, log: Path) -> None:
        self._server = server
        self.port = port
        self.log = log

    def url(self, database: str, user: str = "postgres", password: str | None = None) -> URL:
        """The address of one of the server's databases through the pooler."""
        return URL.create(
            "postgresql+psycopg", user, password, "127.0.0.1", self.port, database=database
        )

    def through(self, url: URL) -> URL:
        """The same database and user as `url`, an address of the server, through the pooler."""
        return self.url(str(url.database), str(url.username), url.password)


@contextmanager
def pooling(server: URL, **options: object) -> Iterator[Pooler]:
    """Run a PgBouncer before `server` until the block ends, for any of its databases and roles.

    It asks for no password, unless `auth_type="scram-sha-256"` is given. `options` are lines of
    pgbouncer.ini. As it is shipped, it refuses a client that sends `options` when it connects;
    some hosts have `ignore_startup_parameters="options"`, and drop them unseen.
    """
    if _PROGRAM is None:
        assert os.environ.get("KPI_TEST_POOLER") != "required", "pgbouncer is not installed"
        pytest.skip("pgbouncer is not installed")
    host, port = _place(server)
    # The server's folder, and so its socket, may be closed to all users but its own.
    owner = Path(host).stat() if os.geteuid() == 0 and host.startswith("/") else None
    if os.geteuid() == 0 and (owner is None or owner.st_uid == 0):
        owner = Path("/var/lib/postgresql").stat()
    # Users other than the server's may not enter the folder of this run.
    place = os.environ.get(RUN) if host.startswith("/") else None
    folder = Path(tempfile.mkdtemp(prefix="pooler-", dir=place))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        own_port: int = free.getsockname()[1]
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": own_port,
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        # Not the connection that was used last: each transaction is on another.
        "server_round_robin": 1,
        "default_pool_size": 6,
        "max_client_conn": 200,
        "auth_type": "trust",
        "auth_file": folder / "users.txt",
        "auth_user": "postgres",
        "logfile": folder / "log",
        "server_login_retry": 1,
        **options,
    }
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host} port={port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    if owner is not None:
        for it in (folder, *folder.iterdir()):
            os.chown(it, owner.st_uid, owner.st_gid)
    process = subprocess.Popen(
        [_PROGRAM, "-q", str(folder / "pgbouncer.ini")],
        user=None if owner is None else owner.st_uid,
        group=None if owner is None else owner.st_gid,
        extra_groups=None if owner is None else [],
        cwd="/",
        stderr=subprocess.PIPE,
    )
    try:
        _await(process, own_port)
        yield Pooler(server, own_port, folder / "log")
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def _place(server: URL) -> tuple[str, str]:
    query = server.query
    return str(server.host or query["host"]), str(server.port or query.get("port", 5432))


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"PgBouncer did not start: {process.communicate()[1].decode()}")
