"""A sync holds a client's lock while it writes the client's rows."""

import threading
import time

from sqlalchemy import text

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline_tests.agency import Agency, errors
from kpi_pipeline_tests.bison_sandbox.running import TODAY

_WAITING = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def test_a_sync_waits_for_a_client_whose_rows_somebody_holds_and_for_no_other(
    agency: Agency,
) -> None:
    held, other = agency.keyed[:2]
    failures: list[dict[str, str]] = []
    run = threading.Thread(
        target=lambda: failures.append(errors(agency.sync([TODAY], [held, other])))
    )
    with agency.app.engine.begin() as connection:
        lock_client(connection, held)
        run.start()
        deadline = time.monotonic() + 20
        while connection.scalar(_WAITING) != 1 or (other, TODAY) not in agency.rows():
            assert time.monotonic() < deadline, "the sync does not wait, or the other client does"
            time.sleep(0.01)
        assert not any((held, TODAY) in rows for rows in agency.all_rows().values())
    run.join()

    assert failures == [{}]
    assert agency.rows().keys() == {(held, TODAY), (other, TODAY)}
