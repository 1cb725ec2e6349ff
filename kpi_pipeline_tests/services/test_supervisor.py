"""What the supervisor decides, with invented parts and moments."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from kpi_pipeline.errors import KpiError
from kpi_pipeline.parts import PartState, PartStatus, read_parts
from kpi_pipeline.services import supervisor as module
from kpi_pipeline.services.logs import LARGEST_LOG
from kpi_pipeline.services.processes import Child
from kpi_pipeline.services.supervisor import Supervisor
from kpi_pipeline_tests.cli.running import wait_until


class FakePart:
    """A part that runs until a test says otherwise."""

    pid = None

    def __init__(self, folder: Path, key: str, *, needs_database: bool = True) -> None:
        self.key, self.name, self.needs_database = key, f"The {key}", needs_database
        self.log = folder / f"{key}.log"
        self.is_started = False
        self.starts = 0
        self.end: str | None = None
        self.ready = self.alive = True
        self.forbidden: str | None = None
        self.killed = 0

    def start(self) -> None:
        self.is_started, self.end = True, None
        self.starts += 1

    def stop(self) -> None:
        self.is_started = False

    def kill(self) -> None:
        self.killed += 1

    def problem(self) -> str | None:
        return self.end

    def needs(self) -> None:
        if self.forbidden:
            raise KpiError(self.forbidden)

    def answers(self) -> bool:
        return self.ready

    def responds(self) -> bool:
        return self.alive


class World:
    """Parts under a supervisor, and its clock."""

    def __init__(self, folder: Path, *keys: str) -> None:
        self.folder = folder
        self.parts = [FakePart(folder, key) for key in keys]
        self.now = 1_000.0
        self.said: list[str] = []
        self.warnings: list[str] = []
        self.database_up = True
        greetings = {key: f"{key} is up" for key in keys}
        self.supervisor = Supervisor(
            "kpi up",
            folder,
            cast(list[Child], self.parts),
            self.said.append,
            self.warnings.append,
            lambda: self.database_up,
            greetings,
        )

    def states(self) -> list[PartState]:
        found = read_parts(self.folder)
        assert found is not None
        return list(found.parts)

    def statuses(self) -> list[str]:
        return [it.status.value for it in self.states()]

    def pass_(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, with a look at the parts after each step."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.supervisor.watch(self.now)

    def settle(self) -> None:
        wait_until(self._are_all_running, "the start of all parts", every=0.001)

    def _are_all_running(self) -> bool:
        self.supervisor.watch(self.now)
        return set(self.statuses()) == {"running"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # Questions are answered at once.
    class Probe:
        def __init__(self, question: Callable[[], bool]) -> None:
            self.answer = question()

        def wait(self, seconds: float) -> bool:
            return self.answer

    monkeypatch.setattr(module, "_Probe", Probe)
    return World(tmp_path, "gateway", "page")


def test_parts_start_in_their_order_each_once_the_one_before_is_ready(world: World) -> None:
    gateway, page = world.parts
    gateway.ready = False
    world.pass_(10)
    assert (gateway.starts, page.starts, world.said) == (1, 0, [])
    gateway.ready = True
    world.pass_(5)
    assert world.statuses() == ["running", "running"]
    assert world.said == ["gateway is up", "page is up"]


def test_a_part_that_does_not_start_holds_up_none_after_it(world: World) -> None:
    gateway, _ = world.parts
    gateway.ready = False
    world.pass_(130)
    assert gateway.killed >= 1
    assert world.states()[0].reason == "was not ready in 120 s"
    assert world.states()[1].status is PartStatus.RUNNING


def test_a_part_that_ends_is_started_again_and_no_other(world: World) -> None:
    world.settle()
    gateway, page = world.parts
    gateway.end = "was killed by SIGKILL"
    world.supervisor.watch(world.now)
    assert world.statuses() == ["pausing", "running"]
    world.pass_(3)
    assert (gateway.starts, page.starts) == (2, 1)
    state, _ = world.states()
    assert (state.status, state.restarts, state.reason) == (
        PartStatus.RUNNING,
        1,
        "was killed by SIGKILL",
    )
    assert world.warnings == [
        f"The gateway was killed by SIGKILL. It is started again in 1 s; see {gateway.log}.",
        "The gateway runs again.",
    ]
    assert world.said == ["gateway is up", "page is up"], "an address is said once"


def test_the_pauses_between_restarts_double(world: World) -> None:
    world.settle()
    gateway, _ = world.parts
    moments: list[float] = []
    for _ in range(4):
        starts, before = gateway.starts, world.now
        gateway.end = "ended with code 1"
        while gateway.starts == starts:
            world.pass_(0.5, step=0.5)
        moments.append(world.now - before)
    assert moments == [1.5, 2.5, 4.5, 8.5]


def test_a_part_that_ends_after_five_restarts_within_ten_minutes_is_given_up_alone(
    world: World,
) -> None:
    world.settle()
    gateway, page = world.parts
    for _ in range(6):
        gateway.end = "ended with code 1"
        world.pass_(30)
    assert gateway.starts == 6
    assert world.statuses() == ["given up", "running"]
    world.pass_(1_000)
    assert (gateway.starts, page.starts) == (6, 1)
    assert world.warnings[-1] == (
        "The gateway ended with code 1, after 5 restarts within ten minutes. It stays down, and "
        f"the others go on: see {gateway.log}, correct the cause, and start `kpi up` again."
    )


def test_ends_that_are_far_apart_are_never_too_many(world: World) -> None:
    world.settle()
    gateway, _ = world.parts
    for _ in range(20):
        gateway.end = "ended with code 1"
        world.pass_(130)
    assert gateway.starts == 21
    assert world.statuses() == ["running", "running"]


def test_when_all_parts_are_given_up_the_command_ends_with_an_error(world: World) -> None:
    world.settle()
    for _ in range(5):
        for part in world.parts:
            part.end = "ended with code 1"
        world.pass_(30)
    for part in world.parts:
        part.end = "ended with code 1"
    with pytest.raises(KpiError, match="All parts of `kpi up` have ended too often"):
        world.pass_(30)
    assert world.statuses() == ["given up", "given up"]


def test_a_part_that_answers_nothing_for_a_minute_is_killed_and_started_again(
    world: World,
) -> None:
    world.settle()
    gateway, page = world.parts
    gateway.alive = False
    world.pass_(60)
    assert gateway.killed == 0
    world.pass_(15)
    assert (gateway.killed, gateway.starts, page.starts) == (1, 2, 1)
    assert "did not answer for 60 s" in world.warnings[0]


def test_a_part_that_is_silent_now_and_then_is_left_alone(world: World) -> None:
    world.settle()
    gateway, _ = world.parts
    for _ in range(20):
        gateway.alive = False
        world.pass_(40)
        gateway.alive = True
        world.pass_(10)
    assert (gateway.killed, gateway.starts) == (0, 1)


def test_after_the_command_itself_was_stopped_for_an_hour_no_part_is_killed(world: World) -> None:
    world.settle()
    gateway, _ = world.parts
    gateway.alive = False
    world.pass_(10)
    world.now += 3_600
    world.supervisor.watch(world.now)
    gateway.alive = True
    world.pass_(60)
    assert (gateway.killed, gateway.starts) == (0, 1)


def test_a_part_that_needs_the_database_waits_for_it_and_is_not_given_up(world: World) -> None:
    gateway, page = world.parts
    gateway.needs_database = False
    world.settle()
    world.database_up = False
    for part in world.parts:
        part.end = "ended with code 1"
    world.pass_(1_800)
    assert (gateway.starts, page.starts) == (2, 1)
    world.database_up = True
    world.pass_(5)
    assert world.statuses() == ["running", "running"]


def test_a_part_that_must_not_go_on_is_stopped_alone_and_stays_down(world: World) -> None:
    world.settle()
    gateway, page = world.parts
    page.forbidden = "Dagster already works on this database."
    world.pass_(100)
    assert (page.is_started, page.starts, gateway.starts) == (False, 1, 1)
    assert world.statuses() == ["running", "given up"]
    reason = world.states()[1].reason
    assert reason == "must not go on: Dagster already works on this database."


def test_a_large_log_is_rotated_while_its_part_writes_on(world: World) -> None:
    world.settle()
    gateway, _ = world.parts
    gateway.log.write_bytes(b"x" * (LARGEST_LOG + 1))
    world.pass_(15)
    assert gateway.log.stat().st_size == 0
    assert gateway.log.with_name("gateway.log.1").stat().st_size == LARGEST_LOG + 1


def test_a_full_disk_does_not_end_the_supervisor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_parts", fail)
    monkeypatch.setattr(module, "rotate", fail)
    world.pass_(30)
    assert [it.starts for it in world.parts] == [1, 1]
