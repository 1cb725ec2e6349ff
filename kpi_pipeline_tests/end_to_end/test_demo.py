"""The README's first command, as a newcomer runs it."""

import json
import os
import secrets
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from kpi_pipeline.db.embedded import embedded_server
from kpi_pipeline.db.engine import open_engine

pytestmark = pytest.mark.long

KPI = [sys.executable, "-m", "kpi_pipeline.cli.main"]


def test_the_demo_fills_35_days_and_today_of_26_clients_hears_of_leads_and_leaves_nothing_running(
    state: Path,
) -> None:
    environment = dict(os.environ) | {"KPI_STATE_DIR": str(state), "KPI_ENV_FILE": ""}
    # The demo must not touch what is configured: no server answers there.
    environment["KPI_DATABASE_URL"] = "postgresql://nobody:wrong-password@127.0.0.1:1/none"
    real = secrets.token_urlsafe(32)
    environment |= {"KPI_WEBHOOK_SECRET_MAIN": real, "KPI_GATEWAY_PORT": "0"}

    done = subprocess.run(
        [*KPI, "demo", "--once", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "26 of 26 clients ok" in done.stdout
    assert "23 of 26 with their own key" in done.stdout
    with embedded_server(state / "demo") as url:
        engine = open_engine(url)
        with engine.connect() as connection:
            counts = connection.execute(
                text("SELECT metric_date, count(*) FROM client_metrics GROUP BY 1 ORDER BY 1")
            ).all()
            events = connection.execute(
                text("SELECT source, status, deliveries FROM webhook_events")
            ).all()
        engine.dispose()
        days = [day for day, _ in counts]
        assert days == [days[-1] - timedelta(days=n) for n in range(35, -1, -1)]
        assert {count for _, count in counts} == {26}
        # Leads that turned interested meanwhile came in by two hooks, and count once.
        assert {(event.source, event.status) for event in events} == {("webhook", "applied")}
        assert max(event.deliveries for event in events) > 1
        kept = (state / "demo/demo.env").read_text()
        assert "KPI_WEBHOOK_SECRET_MAIN=" in kept
        assert real not in kept
        assert _printed(environment, days[-2]) == 26


def _printed(environment: dict[str, str], day: date) -> int:
    """How many rows with numbers `kpi --demo metrics` prints of one day."""
    output = subprocess.run(
        [*KPI, "--demo", "metrics", "--date", str(day), "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return sum(row["positive_replies_mtd"] is not None for row in json.loads(output))
