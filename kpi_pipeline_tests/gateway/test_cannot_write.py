"""A database that answers and stores nothing: senders are to repeat, and monitors see it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, text

from kpi_pipeline.gateway.last_write import REMEMBERED_SECONDS, LastWrite
from kpi_pipeline_tests.gateway.support import Gateway, encoded, in_thread, lead
from kpi_pipeline_tests.inbox.support import FULL_DISK

FULL = "the disk of the database is full"


@pytest.fixture
def gateway(database: URL) -> Iterator[Gateway]:
    with in_thread(database) as gateway:
        yield gateway


def administer(engine: Engine, *statements: str) -> None:
    """Do statements from another database of the server, each in no transaction."""
    other = create_engine(engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    other.dispose()


def require_503(gateway: Gateway, reason: str, not_ready: str) -> None:
    """A delivery is to be repeated, and the gateway is not ready, for these reasons."""
    answer = gateway.post(lead())
    assert (answer.status_code, answer.json()) == (503, {"error": f"Try again later: {reason}."})
    assert int(answer.headers["retry-after"]) > 0
    ready = gateway.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert not_ready in ready.json()["error"]
    assert gateway.http.get("/healthz").status_code == 200


def require_200(gateway: Gateway) -> None:
    """A delivery is stored, and the gateway is ready."""
    body = encoded(lead())
    assert gateway.post(body).json()["status"] == "applied"
    assert gateway.rows("SELECT body FROM webhook_events") == [{"body": body}]
    assert gateway.http.get("/readyz").json() == {"status": "ready"}


def test_an_event_is_503_while_the_disk_is_full_and_readyz_says_so(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with gateway.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN {FULL_DISK}; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER failing BEFORE INSERT ON webhook_events "
                "FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
        )
    for _ in range(2):
        require_503(gateway, FULL, f"Events could not be stored a moment ago: {FULL}.")
    # A log on the same disk is not filled with it.
    assert caplog.text.count("Events cannot be stored") == 1
    with gateway.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER failing ON webhook_events"))
    require_200(gateway)


@contextmanager
def small_disk(engine: Engine) -> Iterator[Path]:
    """A file system of a few mebibytes, on which the table of events is. A test may fill `full`."""
    folder = Path(tempfile.mkdtemp(prefix="kpi-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("only root may mount a file system")
    place = folder / "tables"
    name = folder.name.replace("-", "_")
    try:
        place.mkdir()
        # Everybody may enter, as the server has a user of its own where root runs the tests.
        folder.chmod(0o755)
        with engine.connect() as connection:
            data = connection.scalar(text("SHOW data_directory"))
        owner = Path(str(data)).stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        administer(engine, f"CREATE TABLESPACE {name} LOCATION '{place}'")
        with engine.begin() as connection:
            # Deleted rows of earlier tests have left room in it.
            connection.execute(text("TRUNCATE webhook_events"))
            connection.execute(text(f"ALTER TABLE webhook_events SET TABLESPACE {name}"))
        try:
            yield folder
        finally:
            (folder / "full").unlink(missing_ok=True)
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE webhook_events SET TABLESPACE pg_default"))
            administer(engine, f"DROP TABLESPACE {name}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(folder)


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as opened:
        while opened.write(b"x" * 4_096):
            pass


def test_a_disk_that_is_really_full_is_503_until_there_is_room(gateway: Gateway) -> None:
    with small_disk(gateway.engine) as folder:
        full = folder / "full"
        with pytest.raises(OSError, match="No space left"):
            fill_up(full)
        require_503(gateway, FULL, FULL)
        full.unlink()
        require_200(gateway)


def test_a_read_only_database_is_503_until_it_accepts_writes(gateway: Gateway) -> None:
    """As after a failover to a standby, or a provider's switch when the disk runs full."""
    database = gateway.engine.url.database
    end_sessions = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{database}' AND backend_type = 'client backend'"
    )
    setting = f'ALTER DATABASE "{database}"'
    administer(gateway.engine, f"{setting} SET default_transaction_read_only = on", end_sessions)
    require_503(gateway, "the database is read-only", "The database is read-only: it is a standby")
    administer(gateway.engine, f"{setting} RESET default_transaction_read_only", end_sessions)
    require_200(gateway)


def test_a_read_only_database_makes_the_gateway_unready_before_any_event(gateway: Gateway) -> None:
    with gateway.engine.connect() as connection:
        connection.execute(text("SET default_transaction_read_only = on"))
        connection.commit()
    # The pool has this one connection.
    ready = gateway.http.get("/readyz")
    assert ready.status_code == 503
    assert "read-only" in ready.json()["error"]


def test_a_failed_write_is_remembered_for_half_a_minute_or_until_one_succeeds() -> None:
    seconds = 100.0
    last = LastWrite(lambda: seconds)
    assert last.problem is None
    assert last.fail(FULL)
    assert not last.fail(FULL)
    seconds += REMEMBERED_SECONDS
    assert last.problem == FULL
    seconds += 1
    assert last.problem is None
    last.fail(FULL)
    last.succeed()
    assert last.problem is None
    # What `/readyz` tries each time is not remembered.
    assert last.fail("the database is read-only")
    assert last.problem is None
