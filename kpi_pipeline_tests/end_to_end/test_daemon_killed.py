"""Dagster's daemon is killed: the gateway and `kpi status` still report it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import pytest
from sqlalchemy import URL

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.status import print_status
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.status import Level
from kpi_pipeline_tests.agency import ASSETS, ten_o_clock
from kpi_pipeline_tests.end_to_end.running import RunningAgency, running_agency

pytestmark = [pytest.mark.long, pytest.mark.weekly]

_STALE_AFTER = timedelta(seconds=60)
_HEARTBEATS = """{ instance { daemonHealth { allDaemonStatuses {
    lastHeartbeatTime required } } } }"""


@pytest.fixture
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgency]:
    with running_agency(
        postgres,
        administer,
        tmp_path_factory.mktemp("killed"),
        {"clients": 3, "calls-per-second": 0, "latency": 0},
        settings={
            "timezone": ten_o_clock(),
            "stale_after_hours": _STALE_AFTER.total_seconds() / 3600,
        },
        schedules_on=True,
        takes_webhooks=True,
    ) as agency:
        yield agency


def test_freshness_turns_503_at_the_set_time_and_status_says_what_is_late_and_for_how_long(
    agency: RunningAgency, capsys: pytest.CaptureFixture[str]
) -> None:
    agency.poll(lambda: _has_begun(agency), "a heartbeat of each daemon")
    dates = [agency.today - timedelta(days=1), agency.today]
    assert agency.run(ASSETS, block_tags(agency.workspaces, dates))[0] is RunStatus.SUCCESS
    (daemon,) = [it for it in agency.children if "daemon" in it.name]
    psutil.Process(daemon.pid).kill()
    as_of = min(row["as_of"] for (_, day), row in agency.rows().items() if day == agency.today)
    assert _freshness(agency).status_code == 200

    agency.poll(lambda: _freshness(agency).status_code == 503, "the answer 503")

    assert datetime.now(UTC) >= as_of + _STALE_AFTER
    assert sorted(_freshness(agency).json()["stale"]) == sorted(agency.workspaces)

    # The command that started it goes on, and would start it again if it were `kpi up`.
    just_now = replace(agency.app, now=lambda: datetime.now(UTC))
    silent = "Dagster's daemon has sent no heartbeat for 1 min"
    agency.poll(lambda: silent in _status(just_now, capsys), "the silence")
    later = replace(agency.app, now=lambda: datetime.now(UTC) + timedelta(hours=3))
    output = _status(later, capsys)
    # Both are due every 15 minutes.
    assert re.search(r"schedule intraday_refresh is [23] h \d+ min late", output)
    assert re.search(r"schedule data_checks is [23] h \d+ min late", output)
    assert "daemon scheduler has sent no heartbeat for 3 h" in output
    assert "schedule clean_up_runs" not in output, "it is due at night"
    assert "0 of 3 clients fresh" in output


def _status(app: AppContext, capsys: pytest.CaptureFixture[str]) -> str:
    """What `kpi status` prints of an installation that is not well, without its line ends."""
    capsys.readouterr()
    assert print_status(app) is not Level.OK
    return " ".join(capsys.readouterr().out.split())


def _has_begun(agency: RunningAgency) -> bool:
    daemons = agency.page.query(_HEARTBEATS, {})["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(it["lastHeartbeatTime"] for it in daemons if it["required"])


def _freshness(agency: RunningAgency) -> httpx.Response:
    return httpx.get(f"{agency.gateway}/freshness", timeout=30)
