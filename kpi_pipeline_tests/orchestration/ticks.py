"""What Dagster's daemon does at a tick, and leaves in the storage, without a daemon."""

from collections.abc import Container
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterInstance
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo
from pydantic import Field

from kpi_pipeline.orchestration.assets.resources import AppResource

_ERROR = SerializableErrorInfo("what no alert shows", [], None)


class ActiveClients(AppResource):
    """A registry without a database, in which these clients are active; without any, all are."""

    active: list[str] = Field(default_factory=list)

    def active_workspaces(self) -> Container[str]:
        """See AppResource."""
        return self.active or _Everything()


class _Everything(Container[str]):
    def __contains__(self, item: object) -> bool:
        return True


def evaluate_schedule(
    definitions: dg.Definitions,
    name: str,
    instance: DagsterInstance,
    tick: datetime,
    app: AppResource | None = None,
) -> tuple[list[dg.RunRequest], str | None]:
    """What a schedule requests at a tick, as Dagster evaluates it; or why it skips the tick."""
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=tick,
        repository_def=definitions.get_repository_def(),
        resources={"app": app or AppResource()},
    ) as context:
        data = definitions.resolve_schedule_def(name).evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message


def leave_tick(
    instance: DagsterInstance,
    name: str,
    *,
    good: bool = True,
    on: bool = True,
    at: datetime | None = None,
    kind: InstigatorType = InstigatorType.SCHEDULE,
    location: str = "kpi",
    ended: bool = True,
) -> None:
    """A schedule's or sensor's tick of now, or of then, which ended so, or is in progress."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__")
    origin = RemoteInstigatorOrigin(repository, name)
    status = InstigatorStatus.DECLARED_IN_CODE if on else InstigatorStatus.STOPPED
    data = (
        ScheduleInstigatorData("1 0 * * *", 0.0)
        if kind is InstigatorType.SCHEDULE
        else SensorInstigatorData()
    )
    state = InstigatorState(origin, kind, status, data)
    if instance.get_instigator_state(origin.get_id(), origin.get_selector().get_id()):
        instance.update_instigator_state(state)
    else:
        instance.add_instigator_state(state)
    instance.create_tick(
        TickData(
            instigator_origin_id=origin.get_id(),
            selector_id=origin.get_selector().get_id(),
            instigator_name=name,
            instigator_type=kind,
            status=_status(good) if ended else TickStatus.STARTED,
            timestamp=(at or datetime.now(UTC)).timestamp(),
            run_ids=[],
            error=None if good else _ERROR,
        )
    )


def end_tick(instance: DagsterInstance, name: str, *, good: bool = True) -> None:
    """End the tick that `leave_tick` left in progress."""
    (state,) = [it for it in instance.all_instigator_state() if it.instigator_name == name]
    (tick,) = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    instance.update_tick(tick.with_status(_status(good), error=None if good else _ERROR))


def _status(good: bool) -> TickStatus:
    return TickStatus.SUCCESS if good else TickStatus.FAILURE
