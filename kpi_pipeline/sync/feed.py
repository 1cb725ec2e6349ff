"""Reads the event feed of each client into the inbox.

The feed has each event of the last ten days, also those that no webhook delivered. Leads are read
at each poll, the other types once an hour, and sent emails never: there are too many, and the facts
hold them.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, BisonError, WorkspaceReader
from kpi_pipeline.bison.events import EVENTS_PATH, FeedPart, read_events
from kpi_pipeline.db.events.feed import (
    FeedState,
    forget_missing_feed,
    note_missing_feed,
    read_feed_states,
    store_feed_states,
)
from kpi_pipeline.db.registry.clients import active_clients, pick_clients
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.domain.formatting import counted, moment
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.feed import FeedIngested, ingest_feed
from kpi_pipeline.inbox.ingest import Inbox, inbox_of
from kpi_pipeline.sync.feed_due import (
    FEED_TYPES,
    LEADS,
    FeedStates,
    Reading,
    readings_due,
    served,
)
from kpi_pipeline.sync.fetch import report_unknown_fields
from kpi_pipeline.sync.identity import read_client
from kpi_pipeline.sync.run import for_each_client

# 40 pages, and 1,000.
_MOST_ROWS, _MOST_ROWS_BY_HAND = 600, 15_000
# Few enough that a sync which begins meanwhile is not delayed.
_SIDE_BY_SIDE = 2
# A poll asks so often whether syncs are in progress.
_ASK_SECONDS = 0.25

_log = logging.getLogger(__name__)


@dataclass
class FeedReport:
    """Result of one poll.

    `clients` were read, of which `left` were not, as syncs are in progress. `new` and `moved` are
    numbers of events, see `FeedIngested`. `problems` are sentences. `without` names the instances
    that have no feed, and `missing` those of which only this poll found it out.
    """

    clients: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    new: int = 0
    moved: int = 0
    problems: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def poll_feed(app: AppContext, *, syncing: Callable[[], bool] = lambda: False) -> FeedReport:
    """Read what is due in the feed of each client, from the last event that was read on.

    A client that fails stops no other. While `syncing` says that syncs are in progress, the
    remaining clients are left to the next poll, unless they have waited for long.
    """
    readings, states = readings_due(app)
    return asyncio.run(_Poll(app, states, _remembered(syncing), _MOST_ROWS).all(readings))


def recover(app: AppContext, since: datetime, workspaces: Sequence[str] = ()) -> FeedReport:
    """Read the feed of these clients, or of all, from `since` on, whatever was read before.

    Raises:
        KpiError: if a workspace is unknown or its client inactive, or if no client has a feed.
    """
    with app.engine.connect() as connection:
        states = read_feed_states(connection)
        chosen = pick_clients(connection, workspaces) if workspaces else active_clients(connection)
    clients = served(app, chosen, set())
    if not clients:
        raise KpiError(
            "No client's feed can be read: `kpi clients list` shows which clients are active and "
            "have an API key, and KPI_BISON_INSTANCES names the instances."
        )
    readings = {it.workspace: Reading(it, dict.fromkeys(FEED_TYPES, since)) for it in clients}
    poll = _Poll(app, states, lambda: False, _MOST_ROWS_BY_HAND)
    return asyncio.run(poll.all(readings))


@dataclass
class _Found:
    """What was read of one client, by type; and the errors."""

    parts: dict[str, FeedPart] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class _Poll:
    def __init__(
        self,
        app: AppContext,
        states: FeedStates,
        syncing: Callable[[], bool],
        most_rows: int,
    ) -> None:
        self._app = app
        self._states = states
        self._syncing = syncing
        self._most_rows = most_rows
        self._inbox = inbox_of(app, realtime=app.settings.realtime)
        self._bison: dict[str, BisonClient] = {}
        self._answered: set[str] = set()
        # Instance → client → the error, where the answer was 404.
        self._without: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._report = FeedReport()

    async def all(self, readings: Mapping[str, Reading]) -> FeedReport:
        """Read all of it; return the report."""
        clients = [it.client for it in readings.values()]
        async with AsyncExitStack() as stack:
            for name in {client.instance for client in clients}:
                bison = self._app.bison_client(self._app.instance(name))
                self._bison[name] = await stack.enter_async_context(bison)
            await for_each_client(
                clients, lambda client: self._one(readings[client.workspace]), _SIDE_BY_SIDE
            )
            for name, bison in self._bison.items():
                report_unknown_fields(self._app, name, bison.unknown_fields)
        self._note_instances()
        return self._report

    async def _one(self, reading: Reading) -> None:
        client = reading.client
        if await self._leaves(reading):
            self._report.left.append(client.workspace)
            return
        read = partial(self._read, reading)
        try:
            found = await read_client(self._app, self._bison[client.instance], client, read)
        except BisonError as error:
            if error.status == 404 and EVENTS_PATH in error.call:
                self._without[client.instance][client.workspace] = str(error)
                return
            found = _Found(errors=dict.fromkeys(reading.since, str(error)))
        except KpiError as error:
            found = _Found(errors=dict.fromkeys(reading.since, f"{client.workspace}: {error}"))
        else:
            self._answered.add(client.instance)
        try:
            store = partial(_store, self._app, self._inbox, reading, found, self._most_rows)
            done, problems = await asyncio.to_thread(retry_on_disconnect, store)
        except Exception as error:  # noqa: BLE001 - one client's error must not stop the others
            _log.exception("%s: its feed could not be stored", client.workspace)
            problems = [f"{client.workspace}: {type(error).__name__}; see the run's log"]
        else:
            self._report.new += done.new
            self._report.moved += done.moved
        self._report.clients.append(client.workspace)
        self._report.problems += problems

    async def _leaves(self, reading: Reading) -> bool:
        return reading.waits and await asyncio.to_thread(self._syncing)

    async def _read(self, reading: Reading, reader: WorkspaceReader) -> _Found:
        found = _Found()
        # The zone of the feed's days is not known, so a day more is asked for on each side.
        now = self._app.now()
        last = max(now.date(), self._app.today())
        left = list(reading.since)
        filtered = True
        while left and not (found.parts and await self._leaves(reading)):
            # One walk serves all types where the instance ignores the filter by type.
            kinds = left[:1] if filtered else left
            since = min(reading.since[it] for it in kinds)
            try:
                part = await read_events(
                    reader.session,
                    kinds,
                    since.date() - timedelta(days=1),
                    last,
                    since=since,
                    most_rows=self._most_rows,
                )
            except BisonError as error:
                if not found.parts:
                    raise
                # What was read before counts all the same.
                found.errors |= dict.fromkeys(kinds, str(error))
            else:
                found.parts |= dict.fromkeys(kinds, part)
                filtered = filtered and part.filtered
            left = left[len(kinds) :]
        return found

    def _note_instances(self) -> None:
        """Note which instances have a feed, and which were found to have none."""
        now = self._app.now()
        with self._app.engine.begin() as connection:
            for name in self._answered:
                forget_missing_feed(connection, name)
            for name, failed in self._without.items():
                if name in self._answered or any(map(self._was_read, failed)):
                    # Others of this instance have a feed: it is the client that lacks it.
                    self._report.problems += failed.values()
                    store_feed_states(connection, self._failed_states(failed, now))
                    continue
                self._report.without.append(name)
                if note_missing_feed(connection, name, now):
                    self._report.missing.append(name)

    def _was_read(self, workspace: str) -> bool:
        state = self._states.get((workspace, LEADS))
        return state is not None and state.read_at is not None

    @staticmethod
    def _failed_states(failed: Mapping[str, str], now: datetime) -> list[FeedState]:
        return [
            FeedState(workspace, kind, now, problem=error)
            for workspace, error in failed.items()
            for kind in FEED_TYPES
        ]


def _store(
    app: AppContext, inbox: Inbox, reading: Reading, found: _Found, most_rows: int
) -> tuple[FeedIngested, list[str]]:
    """Ingest what was read of one client, and store how far that was; its problems, too."""
    client, now = reading.client, app.now()
    events: list[Event] = []
    states = [
        FeedState(client.workspace, kind, now, problem=error)
        for kind, error in found.errors.items()
    ]
    problems = list(dict.fromkeys(found.errors.values()))
    foreign = undated = 0
    for kind, part in found.parts.items():
        undated += part.undated
        for it in part.events:
            if it.event_type != kind:
                continue
            event = parse_event(
                it.body,
                instance=client.instance,
                source=EventSource.FEED,
                arrived_at=now,
                tz=inbox.day_zone,
            )
            if event.status is EventStatus.TEST:
                continue
            if event.recorded_at is None:
                undated += 1
            elif event.bison_workspace_id not in (client.bison_workspace_id, None):
                foreign += 1
            else:
                events.append(event)
        problem = None
        if not part.complete:
            problem = (
                f"{client.workspace}: its feed has more than {counted(most_rows, 'row')} since "
                f"{moment(reading.since[kind], app.timezone)}: `kpi events recover` reads more of "
                "them"
            )
            problems.append(problem)
        latest = min(part.latest, now) if part.latest else None
        states.append(FeedState(client.workspace, kind, now, now, latest, problem))
    if foreign:
        name = "names" if foreign == 1 else "name"
        of_feed = f"{counted(foreign, 'row')} of its feed"
        problems.append(f"{client.workspace}: {of_feed} {name} another workspace")
    if undated:
        of_feed = f"{counted(undated, 'row')} of its feed"
        problems.append(f"{client.workspace}: {of_feed} without a valid time")
    ingested = ingest_feed(inbox, client.workspace, events)
    # Afterwards: what was not stored is read again.
    with app.engine.begin() as connection:
        store_feed_states(connection, states)
    return ingested, problems


def _remembered(ask: Callable[[], bool]) -> Callable[[], bool]:
    """`ask`, four times a second at most."""
    asked_at, answer = float("-inf"), False

    def remembered() -> bool:
        nonlocal asked_at, answer
        if time.monotonic() - asked_at >= _ASK_SECONDS:
            asked_at, answer = time.monotonic(), ask()
        return answer

    return remembered
