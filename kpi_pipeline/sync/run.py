"""Syncs a block of clients and dates: clients concurrently, each independent of the others."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    CallStats,
    KeyUse,
    counting_calls,
)
from kpi_pipeline.db.coordination.lease import backfill_fetch_lock
from kpi_pipeline.db.facts import are_known_since, oldest_open_days
from kpi_pipeline.db.metrics import DayNumbers
from kpi_pipeline.db.registry.clients import Client, pick_each
from kpi_pipeline.db.server.retry import DatabaseAway, retry_on_disconnect
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.domain.calendar import LONGEST_LOOK_BACK_DAYS, days_between
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.fetch import (
    FetchedFacts,
    facts_period,
    fetch_facts,
    report_unknown_fields,
)
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline.sync.store import RowsFailedError, count_failed_try, store_client

T = TypeVar("T")


async def for_each_client(
    clients: Sequence[Client],
    work: Callable[[Client], Awaitable[T]],
    limit: int,
    *,
    makes_calls: bool = True,
) -> list[T]:
    """Do `work` for all clients, `limit` of them at a time; the results are in no particular order.

    If the work makes calls, clients without an own API key run one after another, since they share
    their instance's master key; they take no slot of the limit.
    """
    slots = asyncio.Semaphore(limit)
    lanes: dict[str, list[Client]] = {}
    for client in clients:
        if makes_calls and not client.has_key:
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
    """Result of one client's sync. `error` is a sentence, or None on success.

    `skipped` is a sentence if the client is inactive: nothing was done, which is no error.
    `warning` is a sentence about a sending plan that could not be read, which is no error.

    `seconds` is the duration in all; `waiting_seconds` of it passed waiting for a call slot, and
    `calling_seconds` within calls.
    """

    workspace: str
    error: str | None = None
    skipped: str | None = None
    warning: str | None = None
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
    *,
    run_id: str,
    fetch: bool = True,
    on_done: Callable[[ClientOutcome], None] = lambda _: None,
) -> list[ClientOutcome]:
    """Make the block's rows right for each of its clients; return the outcomes in its order.

    Facts are fetched, and the rows of all three tables are written. Without `fetch`, projections
    and metrics are computed again from the stored facts, without a call. A client that fails keeps
    all its rows as they were and stops no other client; an unknown client counts as failed. Each
    outcome goes to `sync_log` under `run_id`, and to `on_done`, once it is known.

    An inactive client is skipped, without a line in `sync_log`: it may have been deactivated after
    the run was requested, which is no reason to fail.

    Raises:
        KpiError: if all clients of the block are unknown.
    """

    def pick() -> tuple[list[Client], dict[str, str], dict[str, str], dict[str, date]]:
        with app.engine.connect() as connection:
            clients, errors, inactive = pick_each(connection, block.workspaces)
            open_days = _open_days(connection, app, block) if fetch else {}
            return clients, errors, inactive, open_days

    clients, errors, inactive, open_days = retry_on_disconnect(pick)
    if errors and not clients and not inactive:
        raise KpiError(" ".join(errors.values()))
    skipped = [ClientOutcome(it, skipped=f"{it} is skipped. {why}") for it, why in inactive.items()]
    for outcome in skipped:
        on_done(outcome)
    sync = _SyncRun(app, block, open_days, run_id, on_done, fetch=fetch)
    synced = asyncio.run(sync.all(clients, errors))
    done = {outcome.workspace: outcome for outcome in [*skipped, *synced]}
    return [done[workspace] for workspace in block.workspaces]


def _open_days(connection: Connection, app: AppContext, block: PartitionBlock) -> dict[str, date]:
    """The day from which a sync of today starts for a client, if that is before the block's dates.

    After an outage, these are all days that are not closed: no call more, and nothing is left to do
    by hand.
    """
    today = app.today()
    if block.backfill is not None or today not in block.dates:
        return {}
    # One call covers the days themselves and those before them that their windows need.
    since = today - timedelta(days=app.settings.series_max_days - LONGEST_LOOK_BACK_DAYS)
    first = min(block.dates)
    if since >= first:
        return {}
    return oldest_open_days(
        connection, block.workspaces, since, first - timedelta(days=1), app.day_zone, app.now()
    )


class _SyncRun:
    def __init__(
        self,
        app: AppContext,
        block: PartitionBlock,
        open_days: Mapping[str, date],
        run_id: str,
        on_done: Callable[[ClientOutcome], None],
        *,
        fetch: bool,
    ) -> None:
        self._app = app
        self._dates = sorted(block.dates)
        self._open_days = open_days
        self._block = block
        self._fetches = fetch
        self._run_id = run_id
        self._on_done = on_done
        self._bison: dict[str, BisonClient] = {}

    def _dates_of(self, workspace: str) -> Sequence[date]:
        """The block's dates, from the client's oldest day that is not closed on."""
        since = self._open_days.get(workspace)
        return self._dates if since is None else days_between(since, self._dates[-1])

    async def all(
        self, clients: Sequence[Client], errors: Mapping[str, str]
    ) -> list[ClientOutcome]:
        """Sync all clients; `errors` has the workspaces that can't be synced, with the reason."""
        outcomes = [ClientOutcome(workspace, error=why) for workspace, why in errors.items()]
        for outcome in outcomes:
            await self._note(outcome)
        async with AsyncExitStack() as stack:
            if self._fetches:
                await self._open_instances(stack, {client.instance for client in clients})
            done = await for_each_client(
                clients,
                self._one,
                self._app.settings.bison_concurrency,
                makes_calls=self._fetches,
            )
            for name, bison in self._bison.items():
                report_unknown_fields(self._app, name, bison.unknown_fields)
        return [*outcomes, *done]

    async def _open_instances(self, stack: AsyncExitStack, names: Collection[str]) -> None:
        for name, instance in self._app.instances().items():
            if name in names:
                bison = self._app.bison_client(instance)
                self._bison[name] = await stack.enter_async_context(bison)

    async def _one(self, client: Client) -> ClientOutcome:
        started = time.monotonic()
        dates = self._dates_of(client.workspace)
        facts: FetchedFacts | None = None
        numbers: Mapping[date, DayNumbers] = {}
        error: str | None = None
        calls = CallStats()
        try:
            async with self._facts_stored(client, dates) as stored:
                if not stored:
                    with counting_calls(calls):
                        facts = await self._fetch(client, dates)
                work = (self._app, client.workspace, dates, facts)
                numbers = await asyncio.to_thread(retry_on_disconnect, partial(store_client, *work))
        except (BisonError, KpiError) as failure:
            error = _with_workspace(client.workspace, str(failure))
        except RowsFailedError as failure:
            error = await self._count_failed_try(client.workspace, failure)
        except Exception as failure:  # noqa: BLE001 - one client's error must not stop the others
            _log.exception("%s failed unexpectedly", client.workspace)
            error = f"{client.workspace}: an unexpected {type(failure).__name__}; see the run's log"
        outcome = ClientOutcome(
            workspace=client.workspace,
            error=error,
            warning=facts.warning if facts else None,
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
    async def _facts_stored(self, client: Client, dates: Sequence[date]) -> AsyncIterator[bool]:
        """Yield whether the facts are stored already; lock out other runs' fetches meanwhile.

        They are if another run of the same backfill fetched them. Today's are always fetched, since
        today's sending plan comes with them.
        """
        backfill = self._block.backfill
        if not self._fetches:
            yield True
        elif backfill is None or self._app.today() in dates:
            yield False
        else:
            period, since = facts_period(dates, None), backfill.requested_at

            def are_stored() -> bool:
                with self._app.engine.connect() as connection:
                    now = self._app.now()
                    return are_known_since(connection, client.workspace, *period, since, now)

            async with backfill_fetch_lock(self._app.engine, client.workspace):
                yield await asyncio.to_thread(retry_on_disconnect, are_stored)

    async def _fetch(self, client: Client, dates: Sequence[date]) -> FetchedFacts:
        # Raises, with the remedy, if the instance is not configured.
        name = self._app.instance(client.instance).name
        bison = self._bison[name]
        return await fetch_facts(self._app, bison, client, dates, self._block)

    async def _count_failed_try(self, workspace: str, failure: RowsFailedError) -> str:
        """Count a failed try for the client's pending events; return the sentence of the error."""
        kind = type(failure.__cause__).__name__
        _log.error("%s: its rows could not be computed", workspace, exc_info=failure.__cause__)
        count = partial(count_failed_try, self._app, workspace, kind)
        try:
            await asyncio.to_thread(retry_on_disconnect, count)
        except (SQLAlchemyError, DatabaseAway):
            _log.exception("%s: the failed try of its events could not be stored", workspace)
        return (
            f"{workspace}: computing its rows failed ({kind}); see the run's log. If a "
            "pending event is the reason, `kpi events list` names it after five tries."
        )

    async def _note(self, outcome: ClientOutcome) -> None:
        dates = self._dates_of(outcome.workspace)
        entry = SyncEntry(
            run_id=self._run_id,
            workspace=outcome.workspace,
            first_date=dates[0],
            last_date=dates[-1],
            error=outcome.error,
            key_used=outcome.key_used,
            api_calls=outcome.api_calls,
            seconds=outcome.seconds,
            waiting_seconds=outcome.waiting_seconds,
            calling_seconds=outcome.calling_seconds,
            finished_at=self._app.now(),
        )

        def store() -> None:
            with self._app.engine.begin() as connection:
                store_entry(connection, entry)

        try:
            await asyncio.to_thread(retry_on_disconnect, store)
        except IntegrityError:
            # The client does not exist (any more), and every line refers to one.
            _log.warning("%s: no line in sync_log, the client does not exist", outcome.workspace)
        except (SQLAlchemyError, DatabaseAway):
            _log.exception("%s: its line in sync_log could not be written", outcome.workspace)
        self._on_done(outcome)


def _with_workspace(workspace: str, error: str) -> str:
    """The error with the workspace in front; errors of the settings don't name one."""
    named = error.startswith(f"{workspace}:") or workspace in error.split()
    return error if named else f"{workspace}: {error}"


def _key_use(client: Client) -> str:
    return (KeyUse.WORKSPACE if client.has_key else KeyUse.MASTER).value
