"""What is due in the event feed of each client, and from which time on it is read."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.events.feed import FeedState, instances_without_feed, read_feed_states
from kpi_pipeline.db.registry.clients import Client, active_clients

LEADS = "lead_interested"
OTHERS = ("lead_replied", "lead_unsubscribed", "email_bounced")
FEED_TYPES = (LEADS, *OTHERS)
FEED_DAYS = 10

_ONE_HOUR = timedelta(hours=1)
# An event may be recorded a while before the feed has it.
_OVERLAP = timedelta(minutes=15)
# A first reading goes back so far: all leads of the feed, and of the rest what today's facts may
# lack.
_FIRST_LEADS, _FIRST_OTHERS = timedelta(days=FEED_DAYS), timedelta(days=1)
# A poll waits for syncs for so long.
_LONGEST_WAIT = timedelta(minutes=10)

FeedStates = Mapping[tuple[str, str], FeedState]


@dataclass(frozen=True)
class Reading:
    """What is to be read of one client: the types, each with the time to read from."""

    client: Client
    since: Mapping[str, datetime]
    waits: bool = False


def feed_is_due(app: AppContext, *, syncing: Callable[[], bool]) -> bool:
    """Whether the leads of some client are to be read now; while `syncing`, they wait."""
    interval = _interval(app)
    if interval is None:
        return False
    with app.engine.connect() as connection:
        states, now = read_feed_states(connection), app.now()
        clients = served(app, active_clients(connection), instances_without_feed(connection, now))
    leads = [states.get((it.workspace, LEADS)) for it in clients]
    if not any(_age(it, now) >= interval for it in leads):
        return False
    return any(_has_waited(it, now, interval) for it in leads) or not syncing()


def readings_due(app: AppContext) -> tuple[dict[str, Reading], FeedStates]:
    """What is to be read now of each client, and what is known of the feeds."""
    interval = _interval(app)
    if interval is None:
        return {}, {}
    with app.engine.connect() as connection:
        states, now = read_feed_states(connection), app.now()
        clients = served(app, active_clients(connection), instances_without_feed(connection, now))
    readings: dict[str, Reading] = {}
    for client in clients:
        # A poll that was interrupted goes on where it stopped.
        ages = {it: _age(states.get((client.workspace, it)), now) for it in FEED_TYPES}
        due = [LEADS] if ages[LEADS] >= interval / 2 else []
        due += [it for it in OTHERS if ages[it] >= _ONE_HOUR - interval / 2]
        if due:
            since = {it: _begin(states.get((client.workspace, it)), it, now) for it in due}
            waited = _has_waited(states.get((client.workspace, LEADS)), now, interval)
            readings[client.workspace] = Reading(client, since, waits=not waited)
    return readings, states


def served(app: AppContext, clients: Sequence[Client], without: Collection[str]) -> list[Client]:
    """The clients whose feed can be read: the instance has one, and an API key covers them."""
    instances = {
        name: it.master_key is not None
        for name, it in app.instances().items()
        if name not in without
    }
    return [
        it for it in clients if it.instance in instances and (it.has_key or instances[it.instance])
    ]


def _interval(app: AppContext) -> timedelta | None:
    minutes = app.settings.event_feed_minutes
    return None if minutes is None else timedelta(minutes=minutes)


def _age(state: FeedState | None, now: datetime) -> timedelta:
    """The time since the last try; the longest one if there was none, or a clock ran ahead."""
    if state is None or state.tried_at > now:
        return timedelta.max
    return now - state.tried_at


def _has_waited(state: FeedState | None, now: datetime, interval: timedelta) -> bool:
    """Whether a client's feed is overdue for so long that no sync is waited for any more."""
    return state is not None and now - state.tried_at >= interval + _LONGEST_WAIT


def _begin(state: FeedState | None, event_type: str, now: datetime) -> datetime:
    """The time from which on the feed is read."""
    earliest = now.astimezone(UTC) - timedelta(days=FEED_DAYS)
    if state is not None and state.recorded_until is not None:
        return max(state.recorded_until - _OVERLAP, earliest)
    if state is not None and state.read_at is not None:
        # It had no event so far.
        return max(state.read_at - _FIRST_OTHERS, earliest)
    return now.astimezone(UTC) - (_FIRST_LEADS if event_type == LEADS else _FIRST_OTHERS)
