"""Works through a rectangle: clients side by side, and each one's trouble stays with it."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import date

from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    CallTally,
    KeyUse,
    tallied,
)
from kpi_pipeline.deployment import Deployment
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.fetch import FetchedFacts, fetch_facts
from kpi_pipeline.sync.novelties import report_unknown_fields
from kpi_pipeline.sync.rectangle import Rectangle, Step
from kpi_pipeline.sync.store import store_client
from kpi_pipeline.warehouse.api_keys import stored_keys
from kpi_pipeline.warehouse.clients import Client, pick_clients
from kpi_pipeline.warehouse.metric_rows import DayNumbers
from kpi_pipeline.warehouse.sync_log import SyncEntry, store_entry

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClientOutcome:
    """How the work for one client ended. `error` is a sentence, or None where all went well.

    Of its `seconds`, some were spent waiting to be let call, and some within calls.
    """

    workspace: str
    error: str | None = None
    key_used: str | None = None
    api_calls: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    calling_seconds: float = 0.0
    fact_days: int = 0
    numbers: Mapping[date, DayNumbers] = field(default_factory=dict)


def work_through(
    deployment: Deployment,
    rectangle: Rectangle,
    steps: Collection[Step],
    *,
    run_id: str,
    on_done: Callable[[ClientOutcome], None] = lambda _: None,
) -> list[ClientOutcome]:
    """Do `steps` for each client of the rectangle; return the outcomes in the rectangle's order.

    A client that fails changes none of its own rows and stops no other. Each outcome goes into
    `sync_log` under `run_id`, and to `on_done`, as soon as it is known.

    Raises:
        KpiError: if the work can't begin: an unknown or inactive client.
    """
    with deployment.engine.connect() as connection:
        clients = pick_clients(connection, rectangle.workspaces)
    return asyncio.run(_Work(deployment, rectangle, frozenset(steps), run_id, on_done).all(clients))


class _Work:
    def __init__(
        self,
        deployment: Deployment,
        rectangle: Rectangle,
        steps: frozenset[Step],
        run_id: str,
        on_done: Callable[[ClientOutcome], None],
    ) -> None:
        self._deployment = deployment
        self._dates = sorted(rectangle.dates)
        self._steps = steps
        self._run_id = run_id
        self._on_done = on_done
        self._slots = asyncio.Semaphore(deployment.settings.bison_concurrency)
        self._bison: dict[str, BisonClient] = {}

    async def all(self, clients: Sequence[Client]) -> list[ClientOutcome]:
        """Work for all clients; the keyless ones take no slot while they wait for each other."""
        async with AsyncExitStack() as stack:
            if Step.FACTS in self._steps:
                await self._open_instances(stack, {client.instance for client in clients})
            lanes: dict[str, list[Client]] = {}
            for client in clients:
                if not client.has_key and Step.FACTS in self._steps:
                    lanes.setdefault(client.instance, []).append(client)
            keyed = [client for client in clients if client not in lanes.get(client.instance, [])]
            parts = await asyncio.gather(
                *(self._one_after_another(lane) for lane in lanes.values()),
                *(self._in_a_slot(client) for client in keyed),
            )
            for name, bison in self._bison.items():
                report_unknown_fields(self._deployment, name, bison.unknown_fields)
        done = {outcome.workspace: outcome for part in parts for outcome in part}
        return [done[client.workspace] for client in clients]

    async def _open_instances(self, stack: AsyncExitStack, names: Collection[str]) -> None:
        for name, instance in self._deployment.instances().items():
            if name in names:
                bison = self._deployment.bison_client(instance)
                self._bison[name] = await stack.enter_async_context(bison)

    async def _one_after_another(self, clients: Sequence[Client]) -> list[ClientOutcome]:
        return [await self._one(client) for client in clients]

    async def _in_a_slot(self, client: Client) -> list[ClientOutcome]:
        async with self._slots:
            return [await self._one(client)]

    async def _one(self, client: Client) -> ClientOutcome:
        started = time.monotonic()
        facts: FetchedFacts | None = None
        numbers: Mapping[date, DayNumbers] = {}
        error: str | None = None
        calls = CallTally()
        try:
            if Step.FACTS in self._steps:
                with tallied(calls):
                    facts = await self._fetch(client)
            numbers = await asyncio.to_thread(
                store_client, self._deployment, client.workspace, self._dates, self._steps, facts
            )
        except (BisonError, KpiError) as trouble:
            error = _naming(client.workspace, str(trouble))
        except Exception as trouble:  # noqa: BLE001 - no client's trouble may stop another's work
            _log.exception("%s failed in a way nobody foresaw", client.workspace)
            error = f"{client.workspace}: an unforeseen {type(trouble).__name__}; see the run's log"
        outcome = ClientOutcome(
            workspace=client.workspace,
            error=error,
            key_used=_key_use(client) if calls.made else None,
            api_calls=calls.made,
            seconds=round(time.monotonic() - started, 3),
            waiting_seconds=round(calls.waiting_seconds, 3),
            calling_seconds=round(calls.calling_seconds, 3),
            fact_days=len(facts.days) if facts else 0,
            numbers=numbers,
        )
        self._note(outcome)
        return outcome

    async def _fetch(self, client: Client) -> FetchedFacts:
        # Refuses an instance that is not configured, with the remedy.
        name = self._deployment.instance(client.instance).name
        with self._deployment.engine.connect() as connection:
            keys = stored_keys(connection, [client.workspace], self._deployment.vault)
        key = keys.get(client.workspace)
        return await fetch_facts(self._deployment, self._bison[name], client, key, self._dates)

    def _note(self, outcome: ClientOutcome) -> None:
        entry = SyncEntry(
            run_id=self._run_id,
            workspace=outcome.workspace,
            first_date=self._dates[0],
            last_date=self._dates[-1],
            error=outcome.error,
            key_used=outcome.key_used,
            api_calls=outcome.api_calls,
            seconds=outcome.seconds,
            waiting_seconds=outcome.waiting_seconds,
            calling_seconds=outcome.calling_seconds,
            finished_at=self._deployment.now(),
        )
        try:
            with self._deployment.engine.begin() as connection:
                store_entry(connection, entry)
        except SQLAlchemyError:
            _log.exception("%s: its line of sync_log could not be written", outcome.workspace)
        self._on_done(outcome)


def _naming(workspace: str, error: str) -> str:
    """The error with the client's name: a fault of the settings does not know whom it hits."""
    named = error.startswith(f"{workspace}:") or workspace in error.split()
    return error if named else f"{workspace}: {error}"


def _key_use(client: Client) -> str:
    return (KeyUse.WORKSPACE if client.has_key else KeyUse.MASTER).value
