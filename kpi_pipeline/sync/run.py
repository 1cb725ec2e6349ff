"""Works through a block: clients side by side, and each one's trouble stays with it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    CallStats,
    KeyUse,
    counting_calls,
)
from kpi_pipeline.db.clients import Client, pick_each
from kpi_pipeline.db.facts import are_known_since
from kpi_pipeline.db.locks import backfill_fetch_lock
from kpi_pipeline.db.metrics import DayNumbers
from kpi_pipeline.db.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.fetch import FetchedFacts, fetch_facts, period_of
from kpi_pipeline.sync.scope import KpiAsset, PartitionBlock
from kpi_pipeline.sync.store import RowsFailedError, count_a_try, store_client
from kpi_pipeline.sync.unknown_fields import report_unknown_fields

T = TypeVar("T")


async def side_by_side(
    clients: Sequence[Client],
    work: Callable[[Client], Awaitable[T]],
    at_once: int,
    *,
    by_master_key: bool = True,
) -> list[T]:
    """Do `work` for all clients, `at_once` of them at a time; in no particular order.

    Clients without a key of their own wait for their instance's master key, and take no slot while
    they do; not so when the work makes no calls (`by_master_key` is false).
    """
    slots = asyncio.Semaphore(at_once)
    lanes: dict[str, list[Client]] = {}
    for client in clients:
        if by_master_key and not client.has_key:
            lanes.setdefault(client.instance, []).append(client)

    async def one_after_another(lane: Sequence[Client]) -> list[T]:
        return [await work(client) for client in lane]

    async def in_a_slot(client: Client) -> list[T]:
        async with slots:
            return [await work(client)]

    keyed = [client for client in clients if client not in lanes.get(client.instance, [])]
    parts = await asyncio.gather(*map(one_after_another, lanes.values()), *map(in_a_slot, keyed))
    return [it for part in parts for it in part]


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


def run_sync(
    app: AppContext,
    block: PartitionBlock,
    steps: Collection[KpiAsset],
    *,
    run_id: str,
    on_done: Callable[[ClientOutcome], None] = lambda _: None,
) -> list[ClientOutcome]:
    """Do `steps` for each client of the block; return the outcomes in the block's order.

    A client that fails changes none of its own rows and stops no other. Each outcome goes into
    `sync_log` under `run_id`, and to `on_done`, as soon as it is known.

    An unknown or inactive client is that client's own failure, too.

    Raises:
        KpiError: if there is no active client among them.
    """

    def pick() -> tuple[list[Client], dict[str, str]]:
        with app.engine.connect() as connection:
            return pick_each(connection, block.workspaces)

    clients, refused = retry_on_disconnect(pick)
    if not clients:
        raise KpiError(" ".join(refused.values()))
    work = _Work(app, block, frozenset(steps), run_id, on_done)
    done = {outcome.workspace: outcome for outcome in asyncio.run(work.all(clients, refused))}
    return [done[workspace] for workspace in block.workspaces]


class _Work:
    def __init__(
        self,
        app: AppContext,
        block: PartitionBlock,
        steps: frozenset[KpiAsset],
        run_id: str,
        on_done: Callable[[ClientOutcome], None],
    ) -> None:
        self._deployment = app
        self._dates = sorted(block.dates)
        self._whole = block.part_of
        self._steps = steps
        self._run_id = run_id
        self._on_done = on_done
        self._bison: dict[str, BisonClient] = {}

    async def all(
        self, clients: Sequence[Client], refused: Mapping[str, str]
    ) -> list[ClientOutcome]:
        """Work for all clients."""
        outcomes = [ClientOutcome(workspace, error=why) for workspace, why in refused.items()]
        for outcome in outcomes:
            await self._note(outcome)
        async with AsyncExitStack() as stack:
            if KpiAsset.FACTS in self._steps:
                await self._open_instances(stack, {client.instance for client in clients})
            done = await side_by_side(
                clients,
                self._one,
                self._deployment.settings.bison_concurrency,
                by_master_key=KpiAsset.FACTS in self._steps,
            )
            for name, bison in self._bison.items():
                report_unknown_fields(self._deployment, name, bison.unknown_fields)
        return [*outcomes, *done]

    async def _open_instances(self, stack: AsyncExitStack, names: Collection[str]) -> None:
        for name, instance in self._deployment.instances().items():
            if name in names:
                bison = self._deployment.bison_client(instance)
                self._bison[name] = await stack.enter_async_context(bison)

    async def _one(self, client: Client) -> ClientOutcome:
        started = time.monotonic()
        facts: FetchedFacts | None = None
        numbers: Mapping[date, DayNumbers] = {}
        error: str | None = None
        calls = CallStats()
        try:
            async with self._turn(client) as has_facts:
                if not has_facts:
                    with counting_calls(calls):
                        facts = await self._fetch(client)
                work = (self._deployment, client.workspace, self._dates, self._steps, facts)
                numbers = await asyncio.to_thread(retry_on_disconnect, partial(store_client, *work))
        except (BisonError, KpiError) as trouble:
            error = _naming(client.workspace, str(trouble))
        except RowsFailedError as trouble:
            error = await self._blame_events(client.workspace, trouble)
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
        await self._note(outcome)
        return outcome

    @asynccontextmanager
    async def _turn(self, client: Client) -> AsyncIterator[bool]:
        """Tells whether the client's facts are there already, and keeps others from fetching them.

        They are if another run of the same backfill has fetched them; today's are always fetched
        anew, with the sending plan that belongs to them.
        """
        whole = self._whole
        if KpiAsset.FACTS not in self._steps:
            yield True
        elif whole is None or self._deployment.today() in self._dates:
            yield False
        else:
            period = period_of(self._dates, None)

            def are_known() -> bool:
                with self._deployment.engine.connect() as connection:
                    return are_known_since(connection, client.workspace, *period, whole.asked_at)

            async with backfill_fetch_lock(self._deployment.engine, client.workspace):
                yield await asyncio.to_thread(retry_on_disconnect, are_known)

    async def _fetch(self, client: Client) -> FetchedFacts:
        # Refuses an instance that is not configured, with the remedy.
        name = self._deployment.instance(client.instance).name
        bison = self._bison[name]
        return await fetch_facts(self._deployment, bison, client, self._dates, self._whole)

    async def _blame_events(self, workspace: str, trouble: RowsFailedError) -> str:
        """Count a try for the client's waiting events; return the sentence about the failure."""
        kind = type(trouble.__cause__).__name__
        _log.error("%s: its rows could not be worked out", workspace, exc_info=trouble.__cause__)
        count = partial(count_a_try, self._deployment, workspace, kind)
        try:
            await asyncio.to_thread(retry_on_disconnect, count)
        except (SQLAlchemyError, DatabaseAway):
            _log.exception("%s: the failed try of its events could not be noted", workspace)
        return (
            f"{workspace}: working out its rows failed ({kind}); see the run's log. If an event "
            "that waits is to blame, `kpi events list` names it once it was tried five times."
        )

    async def _note(self, outcome: ClientOutcome) -> None:
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

        def store() -> None:
            with self._deployment.engine.begin() as connection:
                store_entry(connection, entry)

        try:
            await asyncio.to_thread(retry_on_disconnect, store)
        except IntegrityError:
            # Nobody knows this client: there is nothing to which its line could belong.
            _log.warning(
                "%s: no line of sync_log for a client that is not there", outcome.workspace
            )
        except (SQLAlchemyError, DatabaseAway):
            _log.exception("%s: its line of sync_log could not be written", outcome.workspace)
        self._on_done(outcome)


def _naming(workspace: str, error: str) -> str:
    """The error with the client's name: a fault of the settings does not know whom it hits."""
    named = error.startswith(f"{workspace}:") or workspace in error.split()
    return error if named else f"{workspace}: {error}"


def _key_use(client: Client) -> str:
    return (KeyUse.WORKSPACE if client.has_key else KeyUse.MASTER).value
