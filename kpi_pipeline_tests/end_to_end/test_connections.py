"""`kpi up` with a plain role, in one database of a server that allows twenty connections."""

import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, NullPool, create_engine, text

from kpi_pipeline.db.server.slots import CONNECTIONS
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.instances import InstanceSetting, format_instances
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.servers import sandbox_server
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.cli.running import calm_zone, wait_until
from kpi_pipeline_tests.databases import administer
from kpi_pipeline_tests.end_to_end.up import KPI, SECRET, Up
from kpi_pipeline_tests.installed_postgres import installed_postgres

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.timeout(600)]

_RUNS = 4
_OPEN = text("""
    SELECT application_name, state FROM pg_stat_activity
    WHERE usename = 'plain' AND backend_type = 'client backend'
""")
_UNDER_WAY = text("SELECT status, count(*) AS number FROM dagster.runs GROUP BY status")


@dataclass
class Watch:
    """How many connections of our role were open: each count, with how often it was seen."""

    engine: Engine
    counts: Counter[int] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)

    def now(self) -> int:
        with self.engine.connect() as connection:
            return len(connection.execute(_OPEN).all())

    def run(self) -> None:
        while not self.ended.wait(0.03):
            self.counts[self.now()] += 1


@pytest.fixture
def server() -> Iterator[URL]:
    with installed_postgres(max_connections=20) as url:
        administer(url, "CREATE ROLE plain LOGIN PASSWORD 'its-word'")
        administer(url, "CREATE DATABASE agency")
        administer(url, "GRANT CREATE ON DATABASE agency TO plain")
        yield url


@pytest.fixture
def up(server: URL, state: Path) -> Iterator[Up]:
    address = server.set(
        drivername="postgresql", username="plain", password="its-word", database="agency"
    )
    with ExitStack() as stack:
        options = {"clients": 12, "calls-per-second": 0, "latency": 1}
        base = Settings(state_dir=state.parent / "sandbox")
        url, sandbox = sandbox_server(base, dict(os.environ), options)
        stack.enter_context(sandbox).await_answer()
        setup = httpx.get(f"{url}/sandbox/setup", timeout=30).json()
        instance = InstanceSetting("main", url, SecretStr(setup["master_key"]))
        environment = dict(os.environ) | {
            "KPI_STATE_DIR": str(state),
            "KPI_DATABASE_URL": address.render_as_string(hide_password=False),
            "KPI_DATABASE_SCHEMA": "kpi",
            "KPI_DAGSTER_DATABASE_SCHEMA": "dagster",
            "KPI_BISON_INSTANCES": format_instances([instance]),
            "KPI_TIMEZONE": calm_zone().key,
            "KPI_WEB_PORT": "0",
            "KPI_GATEWAY_PORT": "0",
            "KPI_DASHBOARD_PORT": "0",
            "KPI_BISON_CONCURRENCY": "4",
            "KPI_WEBHOOK_SECRET_MAIN": SECRET,
        }
        table = state.parent / "clients.csv"
        table.write_text(httpx.get(f"{url}/sandbox/clients.csv?instance=main", timeout=30).text)
        for words in (["db", "upgrade"], ["clients", "import", str(table)]):
            subprocess.run([*KPI, *words], env=environment, check=True)
        output = state.parent / "output"
        with output.open("w") as file:
            process = subprocess.Popen(
                [*KPI, "up"], env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            yield Up(process, state, output)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def test_everything_together_stays_within_its_connections_with_four_runs_under_way(
    server: URL, up: Up
) -> None:
    engine = create_engine(
        server.set(database="agency"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    watch = Watch(engine)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        with engine.connect() as connection:
            workspaces = list(
                connection.scalars(
                    text("SELECT partition FROM dagster.dynamic_partitions ORDER BY id")
                )
            )
        yesterday = utc_now().date() - timedelta(days=2)
        for number in range(_RUNS):
            days = [yesterday - timedelta(days=number)]
            up.page.launch(list(KpiAsset), block_tags(workspaces, days))
        most = 0

        def all_ended() -> bool:
            nonlocal most
            with engine.connect() as connection:
                found = {it.status: it.number for it in connection.execute(_UNDER_WAY)}
            most = max(most, found.get("STARTED", 0))
            httpx.get(f"{up.dashboard}/", timeout=30)
            assert not found.keys() & {"FAILURE", "CANCELED"}, found
            return bool(found.get("SUCCESS", 0) >= _RUNS)

        wait_until(all_ended, "the end of all runs", seconds=300, every=0.2)
        assert most >= _RUNS
        # What is idle is given back.
        wait_until(lambda: watch.now() <= CONNECTIONS // 2, "idle connections", seconds=60)
    finally:
        watch.ended.set()
        thread.join()
        engine.dispose()
    print(sorted(watch.counts.items()))
    assert max(watch.counts) <= CONNECTIONS, sorted(watch.counts.items())
    logs = "".join(it.read_text() for it in (up.state / "logs").glob("*.log"))
    assert re.findall(r".*(?:no further connection|one more is opened).*", logs) == []
