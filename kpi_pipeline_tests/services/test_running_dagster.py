"""Which Dagster a command joins, and when it starts one of its own."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.runtime.claim import DaemonRunningError
from kpi_pipeline.services import running_dagster
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.processes import Child
from kpi_pipeline.services.running_dagster import RunningDagster
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.bison_sandbox.running import Stage
from kpi_pipeline_tests.cli.running import closed_port
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.services.invented_backfills import LAUNCHED, Clock, launched_run

KINDS = ("BACKFILL", "QUEUED_RUN_COORDINATOR")


class FakePage:
    """What Dagster's page says about its code and its daemon, over HTTP."""

    def __init__(self, heartbeats: Mapping[str, float | None]) -> None:
        self.heartbeats = dict(heartbeats)
        self.healthy = True
        self.location = "kpi_pipeline"
        self.app = Starlette(routes=[Route("/graphql", self._answer, methods=["POST"])])

    async def _answer(self, _request: Request) -> JSONResponse:
        daemons = [
            {"daemonType": it, "required": True, "healthy": self.healthy, "lastHeartbeatTime": time}
            for it, time in self.heartbeats.items()
        ]
        data = {
            "workspaceOrError": {"locationEntries": [{"name": self.location}]},
            "instance": {"daemonHealth": {"allDaemonStatuses": daemons}},
        }
        return JSONResponse({"data": data})


class Starts:
    """Replaces `dagster_servers`, and records the port of each start."""

    def __init__(self) -> None:
        self.ports: list[int] = []

    @contextmanager
    def __call__(
        self, settings: Settings, _environment: object, _claim: object
    ) -> Iterator[tuple[DagsterPage, list[Child]]]:
        self.ports.append(settings.web_port)
        yield DagsterPage("http://127.0.0.1:1"), []


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with temporary_instance() as opened:
        yield opened


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts = Starts()
    monkeypatch.setattr(running_dagster, "dagster_servers", starts)
    monkeypatch.setattr(running_dagster, "child_environment", lambda settings: {})
    monkeypatch.setattr(running_dagster, "one_daemon", lambda *_: nullcontext())
    return starts


@pytest.fixture
def serve(stage: Stage) -> Iterator[Callable[[FakePage], Settings]]:
    """Serves a page; returns the settings with its port."""
    before = stage.app

    def put_up(page: FakePage) -> Settings:
        stage.app = page.app
        return _settings(stage)

    yield put_up
    stage.app = before


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _settings(stage: Stage) -> Settings:
    return Settings(web_port=int(stage.url.rsplit(":", 1)[1]))


def _beat(instance: DagsterInstance, at: datetime) -> dict[str, float | None]:
    """Have the daemon send heartbeats; what its page shows then."""
    for kind in KINDS:
        instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), kind, "a-daemon"))
    return dict.fromkeys(KINDS, at.timestamp())


def _joined(settings: Settings, instance: DagsterInstance, clock: Clock) -> RunningDagster:
    with running_dagster.running_dagster(
        settings, instance, clock.now, lambda _: None, clock.sleep
    ) as found:
        return found


def test_the_page_that_shows_this_installations_daemon_is_joined(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
) -> None:
    beats = _beat(instance, LAUNCHED - timedelta(seconds=20))
    settings = serve(FakePage(beats))
    found = _joined(settings, instance, clock)
    assert (found.page.url, found.children) == (f"http://127.0.0.1:{settings.web_port}", ())
    assert (starts.ports, clock.slept()) == ([], 0)
    # Other commands rely on the heartbeats of what keeps running.
    assert {kind: it.timestamp for kind, it in instance.get_daemon_heartbeats().items()} == beats


@pytest.mark.parametrize(("age", "healthy"), [(300, True), (20, False)], ids=["silent", "ill"])
def test_a_page_whose_daemon_is_not_running_is_rejected(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
    age: float,
    healthy: bool,
) -> None:
    page = FakePage(_beat(instance, LAUNCHED - timedelta(seconds=age)))
    page.healthy = healthy
    settings = serve(page)
    with pytest.raises(KpiError) as refused:
        _joined(settings, instance, clock)
    assert str(refused.value) == (
        f"Dagster's page at http://127.0.0.1:{settings.web_port} is running, but its daemon is "
        "not, so no run would start. Stop the page, and start both with `kpi up`."
    )
    assert starts.ports == []


def test_a_daemon_that_starts_after_its_page_is_waited_for(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
) -> None:
    page = FakePage(dict.fromkeys(KINDS))
    settings = serve(page)

    def start() -> None:
        page.heartbeats = _beat(instance, clock.now())

    clock.then = start
    assert _joined(settings, instance, clock).children == ()
    assert (starts.ports, clock.slept()) == ([], 1)


@pytest.mark.parametrize(
    "other",
    [
        FakePage(dict.fromkeys(KINDS, (LAUNCHED - timedelta(seconds=7)).timestamp())),
        FakePage(dict.fromkeys(KINDS)),
    ],
    ids=["running", "never started"],
)
def test_a_page_of_another_installation_is_left_alone_and_another_port_is_taken(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
    other: FakePage,
) -> None:
    _beat(instance, LAUNCHED - timedelta(days=1))
    _joined(serve(other), instance, clock)
    assert (starts.ports, clock.slept()) == ([0], 0)


def test_a_page_of_other_code_is_left_alone(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
) -> None:
    page = FakePage(_beat(instance, LAUNCHED - timedelta(days=1)))
    page.location = "another_pipeline"
    _joined(serve(page), instance, clock)
    assert starts.ports == [0]


def test_another_program_at_the_port_is_left_alone(
    instance: DagsterInstance, starts: Starts, stage: Stage, clock: Clock
) -> None:
    _joined(_settings(stage), instance, clock)
    assert starts.ports == [0]


def test_where_nothing_is_running_dagster_is_started_at_the_configured_port(
    instance: DagsterInstance, starts: Starts, clock: Clock
) -> None:
    port = int(closed_port())
    _joined(Settings(web_port=port), instance, clock)
    assert (starts.ports, clock.slept()) == ([port], 0)


def test_no_second_daemon_is_started_beside_one_whose_page_is_somewhere_else(
    instance: DagsterInstance, starts: Starts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refuse(*_: object) -> Iterator[None]:
        raise DaemonRunningError("Dagster already works on this database.")
        yield

    monkeypatch.setattr(running_dagster, "one_daemon", refuse)
    with pytest.raises(KpiError) as refused:
        _joined(Settings(web_port=0), instance, clock)
    assert str(refused.value) == (
        "Dagster already works on this database. To use it, set KPI_WEB_PORT (now 0) to the port "
        "of its page, and KPI_WEB_PASSWORD to its password, if it has one."
    )
    assert starts.ports == []


def _claim(instance: DagsterInstance, at: datetime, page: str | None, **changed: object) -> None:
    """`kpi up` holds the claim, renewed at this instant."""
    values: dict[str, Any] = {"holder": "it", "command": "kpi up", "host": "there", "pid": 7}
    times = {"since": 0.0, "renewed_at": at.timestamp()}
    text = json.dumps({**values, **times, "page": page, "daemon": "a-daemon", **changed})
    instance.daemon_cursor_storage.set_cursor_values({"kpi/daemon": text})


def test_the_page_of_the_claim_is_joined_whatever_port_is_configured(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
) -> None:
    settings = serve(FakePage(_beat(instance, LAUNCHED - timedelta(seconds=20))))
    url = f"http://127.0.0.1:{settings.web_port}"
    _claim(instance, clock.now(), url)
    found = _joined(Settings(web_port=int(closed_port())), instance, clock)
    assert (found.page.url, found.children, starts.ports) == (url, (), [])


def test_the_page_of_a_claim_that_was_released_is_not_joined(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
) -> None:
    settings = serve(FakePage(_beat(instance, LAUNCHED - timedelta(seconds=20))))
    _claim(instance, clock.now(), f"http://127.0.0.1:{settings.web_port}", released=True)
    _joined(Settings(web_port=0), instance, clock)
    assert starts.ports == [0]


def test_a_daemon_whose_machine_has_a_wrong_clock_counts_as_running_while_its_claim_is_renewed(
    instance: DagsterInstance,
    starts: Starts,
    serve: Callable[[FakePage], Settings],
    clock: Clock,
) -> None:
    settings = serve(FakePage(_beat(instance, LAUNCHED - timedelta(hours=3))))
    _claim(instance, clock.now(), None)
    assert _joined(settings, instance, clock).children == ()
    assert (starts.ports, clock.slept()) == ([], 0)


def test_what_was_started_leaves_no_heartbeat_and_no_running_run(
    instance: DagsterInstance, starts: Starts, clock: Clock
) -> None:
    settings = Settings(web_port=0)
    with running_dagster.running_dagster(
        settings, instance, clock.now, lambda _: None, clock.sleep
    ):
        _beat(instance, datetime.now(UTC))
        launched = launched_run(instance, {})
        queued = launched_run(instance, {}, DagsterRunStatus.QUEUED)
        ended = launched_run(instance, {}, DagsterRunStatus.SUCCESS)
        # As `kpi sync` does, in a process of its own that goes on.
        beside: Any = create_run_for_test(instance, status=DagsterRunStatus.STARTED)

    assert instance.get_daemon_heartbeats() == {}
    runs = (launched, queued, ended, beside)
    found = [instance.get_run_by_id(run.run_id) for run in runs]
    assert [run.status.value for run in found if run] == ["FAILURE", "QUEUED", "SUCCESS", "STARTED"]
