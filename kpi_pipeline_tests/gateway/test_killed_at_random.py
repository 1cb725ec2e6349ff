"""Two thousand deliveries, while gateway and PostgreSQL are killed again and again."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline_tests.agency import Agency, agency_on
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.gateway.support import GatewayProcess, gateway_processes
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = pytest.mark.long

LEADS = 1_000
KILLS = 4
_LONGEST_SECONDS = 600.0


@pytest.fixture
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


@pytest.fixture
def agency(
    server: RestartableServer, bison: Bison, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agency]:
    """The agency on a server of its own, which may be killed."""
    engine = open_engine(server.url)
    upgrade(engine)
    engine.dispose()
    with agency_on(server.url, bison, monkeypatch) as agency:
        yield agency


def positive_replies(agency: Agency) -> dict[str, int]:
    today = agency.today
    return {
        workspace: row["positive_replies_today"]
        for (workspace, day), row in agency.rows().items()
        if day == today
    }


def kill_at_random(
    gateway: GatewayProcess, server: RestartableServer, chance: random.Random
) -> None:
    """Kill the one and the other in turns, and start them again."""
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.3, 1.0))
        gateway.kill()
        gateway.start()
        gateway.wait_until_ready()
        time.sleep(chance.uniform(0.3, 1.0))
        server.stop()
        time.sleep(chance.uniform(0.0, 0.7))
        server.start()


@pytest.mark.timeout(1_200)
def test_killed_gateways_and_databases_lose_no_event_and_count_none_twice(
    agency: Agency, server: RestartableServer, bison: Bison, tmp_path: Path
) -> None:
    chance = random.Random(2_000)
    today = agency.today
    agency.synced([today])
    base = positive_replies(agency)
    # The sandbox's clock stands still in March: no time in a body may date an event of today.
    bison.variants(
        event_casing="mixed",
        lead_campaign_event="replied",
        delivery_seconds=4,
        delivery_repeats=0.2,
        delivery_retry_seconds=1.5,
    )
    rows = bison.with_key()[:10]
    slugs = {number: slug for slug, number in agency.ids.items()}
    with gateway_processes(tmp_path, 1) as [gateway]:
        bison.parent_hook(gateway.url)
        for row in rows:
            bison.hook(row, gateway.url)
            bison.mark(row, leads=LEADS // len(rows))
        assert bison.pending_deliveries() >= 2 * LEADS * 0.9
        kill_at_random(gateway, server, chance)
        deadline = time.monotonic() + _LONGEST_SECONDS
        while pending := bison.pending_deliveries():
            assert time.monotonic() < deadline, pending
            time.sleep(0.5)
        log = bison.deliveries()

    assert log["given_up"] == 0
    retried = [each for each in log["deliveries"] if each["tries"] > 1]
    assert len(retried) > 20, "too little was killed in mid-delivery"
    with agency.app.engine.connect() as connection:
        counted = connection.execute(
            text("SELECT status, count(*) FROM webhook_events GROUP BY status")
        ).all()
    assert [tuple(row) for row in counted] == [("applied", LEADS)]
    more = {slugs[int(row["bison_workspace_id"])]: LEADS // len(rows) for row in rows}
    expected = {workspace: base[workspace] + more.get(workspace, 0) for workspace in base}
    assert positive_replies(agency) == expected
    # And what Email Bison counts itself, once it is asked again, is the same.
    agency.synced([today])
    assert positive_replies(agency) == expected
