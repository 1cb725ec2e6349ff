"""The parts of `kpi up` are killed and paused: each comes back alone, and nothing is lost."""

import random
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from kpi_pipeline.db.server.embedded import embedded_server
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.parts import read_parts
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.cli.running import calm_zone, wait_until
from kpi_pipeline_tests.domain.bodies import content
from kpi_pipeline_tests.end_to_end.up import PARTS, SECRET, Up, running_up

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

_PROCESSES = [it for it in PARTS if it != "postgres"]
# What a restart may take.
_BACK_SECONDS = 30.0
_LEADS = """SELECT (convert_from(body, 'UTF8')::jsonb -> 'data' -> 'lead' ->> 'id')::bigint
    FROM webhook_events"""


@pytest.fixture
def up(state: Path) -> Iterator[Up]:
    with running_up(state) as up:
        yield up


def test_each_part_that_is_killed_comes_back_and_no_other_is_touched(up: Up) -> None:
    for key in PARTS:
        before = up.pids()
        up.kill(key)
        after = up.pids()
        changed = {it for it in PARTS if before[it] != after[it]}
        assert changed == {key}, up.output.read_text()

    up.kill(*PARTS)

    assert set(up.restarts().values()) == {2}
    text_of = up.output.read_text()
    assert text_of.count("The gateway was killed by SIGKILL. It is started again in ") == 2
    assert text_of.count("The dashboard is at ") == 1, "its address stays the same"


@pytest.mark.weekly
def test_parts_that_are_paused_for_a_minute_are_started_again(up: Up) -> None:
    before = up.restarts()
    up.send_signal(signal.SIGSTOP, *PARTS)

    seconds = up.seconds_until_well(lambda: all(up.restarts()[key] > before[key] for key in PARTS))

    assert seconds >= 30, "nothing is killed for a short silence"
    assert "did not answer for 6" in up.output.read_text()


@pytest.mark.weekly
def test_ctrl_c_while_parts_are_started_again_leaves_nothing(up: Up) -> None:
    family = psutil.Process(up.process.pid).children(recursive=True)
    up.send_signal(signal.SIGKILL, *_PROCESSES)
    time.sleep(random.uniform(0.5, 3.0))

    up.process.send_signal(signal.SIGTERM)

    assert up.process.wait(timeout=180) == 0, up.output.read_text()
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    # The fixture `state` finds every other process.


@pytest.mark.weekly
def test_a_gateway_that_ends_again_and_again_is_given_up_alone(up: Up) -> None:
    before = up.pids()
    # It can't listen on its port: another program does, between two starts.
    port = int(up.gateway.rpartition(":")[2])
    up.send_signal(signal.SIGKILL, "gateway")
    with _listening(port):
        wait_until(
            lambda: (
                "The gateway" in up.output.read_text()
                and "It stays down, and the others go on" in up.output.read_text()
            ),
            "the end of its restarts",
            seconds=200,
            every=0.5,
            details=up.output.read_text,
        )
    after = up.pids()
    assert {it for it in PARTS if before[it] != after.get(it)} == {"gateway"}
    found = read_parts(up.state)
    assert found is not None
    (given_up,) = found.given_up
    assert (given_up.key, given_up.restarts) == ("gateway", 5)
    log = (up.state / "logs/supervisor.log").read_text()
    assert "ERROR The gateway ended with code 1, after 5 restarts within ten minutes" in log


@contextmanager
def _listening(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def bound() -> bool:
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                return True
            return False

        wait_until(bound, "the end of the gateway")
        listener.listen()
        yield


class Sender:
    """Sends events as Email Bison does: again until they are acknowledged, and some twice."""

    def __init__(self, up: Up, workspace_ids: Sequence[int]) -> None:
        self._url = f"{up.gateway}/webhooks/bison/{SECRET}"
        self._ids = workspace_ids
        self.acknowledged: set[int] = set()
        self.refused = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._send, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _send(self, over: threading.Event) -> None:
        number = 10_000_000
        with httpx.Client(timeout=20) as http:
            while not over.is_set():
                number += 1
                data = {"lead": {"id": number}, "campaign": {"id": 3}}
                body = content("LEAD_INTERESTED", data, self._ids[number % len(self._ids)])
                for _ in range(2 if number % 5 == 0 else 1):
                    while not self._is_taken(http, body) and not over.wait(0.2):
                        self.refused += 1
                    else:
                        if not over.is_set():
                            self.acknowledged.add(number)
                over.wait(0.05)

    def _is_taken(self, http: httpx.Client, body: object) -> bool:
        try:
            return http.post(self._url, json=body).status_code == 200
        except httpx.TransportError:
            return False


class Syncs:
    """Launches syncs of all clients through Dagster's page, one after the other."""

    def __init__(self, up: Up, workspaces: Sequence[str], days: Sequence[date]) -> None:
        self._page, self._tags = up.page, block_tags(workspaces, days)
        self.launched: list[str] = []

    def keep_running(self) -> None:
        """Launch one if none is under way; a page that is down is asked later."""
        with suppress(KpiError, httpx.HTTPError):
            if self.launched and self._page.status(self.launched[-1]) is RunStatus.UNDER_WAY:
                return
            self.launched.append(self._page.launch(ASSETS, self._tags))


@pytest.mark.weekly
@pytest.mark.timeout(3_600)
def test_twenty_crashes_at_random_lose_no_event_double_none_and_all_comes_back(up: Up) -> None:
    chance = random.Random(20)
    with embedded_server(up.state) as url:
        engine = open_engine(url, pool_size=1)
        with engine.connect() as connection:
            clients = connection.execute(
                text("SELECT workspace, bison_workspace_id FROM clients WHERE active ORDER BY 1")
            ).all()
        engine.dispose()
    today = business_date(utc_now(), calm_zone())
    syncs = Syncs(up, [it[0] for it in clients], [today - timedelta(days=1), today])
    sender = Sender(up, [it[1] for it in clients])
    # Each part less often than it would be given up.
    crashes = [[key] for key in PARTS * 3] + [PARTS, _PROCESSES]
    chance.shuffle(crashes)
    seconds = []
    with sender.sending():
        for number, keys in enumerate(crashes):
            syncs.keep_running()
            time.sleep(chance.uniform(0.5, 5.0))
            # Two of the twenty are paused; that is noticed after a minute.
            blow = signal.SIGSTOP if number in (7, 13) else signal.SIGKILL
            took = up.kill(*keys, number=blow)
            if blow is signal.SIGKILL:
                seconds.append(took)

    syncs.launched.clear()
    syncs.keep_running()
    (last,) = syncs.launched
    wait_until(
        lambda: up.page.status(last) is not RunStatus.UNDER_WAY,
        "the end of the last sync",
        seconds=600,
        every=1,
    )
    assert up.page.status(last) is RunStatus.SUCCESS
    with embedded_server(up.state) as url:
        engine = open_engine(url, pool_size=1)

        def waiting() -> int:
            with engine.connect() as connection:
                states = text("SELECT count(*) FROM webhook_events WHERE status <> 'applied'")
                return int(connection.scalar(states) or 0)

        wait_until(lambda: waiting() == 0, "all events applied", seconds=120, every=1)
        with engine.connect() as connection:
            leads = connection.scalars(text(_LEADS)).all()
            rows = connection.execute(
                text(
                    "SELECT workspace, count(*) FROM client_metrics WHERE metric_date = :today "
                    "GROUP BY 1"
                ),
                {"today": today},
            ).all()
        engine.dispose()
    assert len(leads) == len(set(leads)), "no event is stored twice"
    assert sender.acknowledged <= set(leads), "no acknowledged event is lost"
    assert len(sender.acknowledged) > 100
    assert sender.refused > 0, "nothing was in mid-air"
    assert {tuple(it) for it in rows} == {(it[0], 1) for it in clients}
    print(f"Back after {[round(it, 1) for it in seconds]} s")
    assert sorted(seconds)[len(seconds) // 2] <= _BACK_SECONDS
