"""Random weeks of problems, mutes and receivers that are down; the rules must hold at each round.

What receivers know is worked out here from their messages alone, and what is muted from the mutes
alone: nothing of the rules' own memory is used.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.rules import (
    Notice,
    NoticeKind,
    after_notice,
    due_notices,
)
from kpi_pipeline.alerts.states import Current, update_states
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, Mute
from kpi_pipeline_tests.alerts.support import START, problem

ROUND = timedelta(minutes=15)
HOUR, DAY, WEEK = 4, 96, 7 * 96  # in rounds
CLIENTS = ("acme", "birch", "cedar")
RECEIVERS = ("chat", "mail")
GRACE = {"sync": 1, "plausible": 0, "freshness": 0}
ERROR, WARN = Severity.ERROR, Severity.WARN
Pair = tuple[str, str, str]  # cause, client, kind of error
# What is wrong with one cause: its severity, and the kind of error of each client.
Wrong = tuple[Severity, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Episode:
    """A cause is wrong for some rounds; with a `beat`, it alternates between two states."""

    start: int
    length: int
    cause: str
    wrong: Wrong
    other: Wrong | None
    beat: int

    def at(self, now: int) -> Wrong | None:
        passed = now - self.start
        if not 0 <= passed < self.length:
            return None
        return self.other if self.beat and passed // self.beat % 2 else self.wrong


@dataclass(frozen=True)
class Silence:
    """Somebody mutes a name for some rounds."""

    start: int
    length: int
    name: str


@dataclass(frozen=True)
class Outage:
    """A receiver accepts nothing for some rounds."""

    start: int
    length: int
    receiver: str

    def covers(self, now: int) -> bool:
        return self.start <= now < self.start + self.length


def wrong(cause: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, Wrong, Wrong | None]]:
    """A cause, and two states of it; the second may be that it is well."""

    def states(of: str) -> st.SearchStrategy[Wrong]:
        kinds = ("401", "timeout") if of == "sync" else ("",)
        clients = st.dictionaries(st.sampled_from(CLIENTS), st.sampled_from(kinds), min_size=1)
        severities = st.just(ERROR) if of == "sync" else st.sampled_from((WARN, ERROR))
        return st.tuples(severities, clients.map(lambda it: tuple(sorted(it.items()))))

    return cause.flatmap(lambda it: st.tuples(st.just(it), states(it), st.none() | states(it)))


STARTS = st.integers(0, WEEK - 1)
SPANS = st.integers(1, 8) | st.integers(1, 2 * DAY)
EPISODES = st.builds(
    lambda start, length, of, beat: Episode(start, length, of[0], of[1], of[2], beat),
    STARTS,
    SPANS,
    wrong(st.sampled_from(tuple(GRACE))),
    st.sampled_from((0, 0, 1, 2, 3, 5, 9, 14, 24)),
)
OUTAGES = st.builds(Outage, STARTS, SPANS, st.sampled_from(RECEIVERS))


@st.composite
def weeks(draw: st.DrawFn) -> tuple[list[Episode], list[Silence], list[Outage]]:
    """What happens in a week; people mute what is wrong, at times before it begins."""
    episodes = draw(st.lists(EPISODES, min_size=3, max_size=25))
    silences = []
    for of in draw(st.lists(st.sampled_from(episodes), max_size=12)):
        client = draw(st.sampled_from(CLIENTS))
        name = draw(st.sampled_from((of.cause, client, f"{client}:{of.cause}")))
        start = max(of.start + draw(st.integers(-8, DAY)), 0)
        silences.append(Silence(start, draw(SPANS), name))
    return episodes, silences, draw(st.lists(OUTAGES, max_size=3))


@dataclass
class Known:
    """What a receiver knows of a cause from its messages."""

    severity: Severity
    pairs: set[Pair]
    told_at: int


@dataclass
class Week:
    """One installation through a week, and the promises to its receivers."""

    episodes: Sequence[Episode]
    silences: Sequence[Silence]
    outages: Sequence[Outage]
    states: dict[str, AlertState] = field(default_factory=dict)
    mutes: dict[str, Mute] = field(default_factory=dict)
    known: dict[tuple[str, str], Known] = field(default_factory=dict)
    last_told: dict[tuple[str, Pair], int] = field(default_factory=dict)
    told_before: set[Pair] = field(default_factory=set)
    sent: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    repeated: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    # Since when an ERROR is there for all to see, and each pair of an ERROR.
    errors_since: dict[str, int] = field(default_factory=dict)
    pairs_since: dict[Pair, int] = field(default_factory=dict)
    began: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    ended_at: dict[str, int] = field(default_factory=dict)
    left_at: dict[Pair, int] = field(default_factory=dict)
    eased: set[str] = field(default_factory=set)
    came_back_at: dict[str, int] = field(default_factory=dict)
    up_since: dict[str, int] = field(default_factory=dict)
    held_until: dict[str, int] = field(default_factory=dict)
    were: dict[str, Wrong] = field(default_factory=dict)

    def run(self) -> None:
        for now in range(WEEK):
            self.round(now, self.wrong_at(now))
        self.mutes.clear()
        self.silences = self.outages = ()
        for now in range(WEEK, WEEK + 3 * DAY):
            self.round(now, {})
        assert self.known == {}, "what was notified was closed"
        assert self.states == {}

    def wrong_at(self, now: int) -> dict[str, Wrong]:
        return {it.cause: found for it in self.episodes if (found := it.at(now)) is not None}

    def round(self, now: int, wrong: dict[str, Wrong]) -> None:
        moment = START + now * ROUND
        self.mute(now, moment)
        found = [as_problem(cause, it) for cause, it in wrong.items()]
        current = update_states(
            found, self.states, mutes=self.mutes, receivers=RECEIVERS, now=moment
        )
        self.states = dict(current.states)
        self.note(now, wrong)
        self.told_before = {pair for it in self.known.values() for pair in it.pairs}
        for receiver in RECEIVERS:
            if any(it.receiver == receiver and it.covers(now) for it in self.outages):
                self.up_since.pop(receiver, None)
                continue
            self.up_since.setdefault(receiver, now)
            current = self.send(current, receiver, now, moment)
            self.assert_informed(receiver, now)
        self.states = dict(current.states)

    def mute(self, now: int, moment: datetime) -> None:
        self.mutes = {name: it for name, it in self.mutes.items() if it.muted_until > moment}
        for it in self.silences:
            if it.start == now:
                end = moment + it.length * ROUND
                open_now = {
                    severity
                    for cause, (severity, clients) in self.were.items()
                    if it.name in (cause, *names_of(cause, dict(clients)))
                }
                self.mutes[it.name] = Mute(it.name, end, moment, min(open_now, default=None))

    def is_muted(self, cause: str, client: str, severity: str) -> bool:
        covering = {
            name for name, it in self.mutes.items() if (it.severity, severity) != (WARN, ERROR)
        }
        return bool(covering & {cause, client, f"{client}:{cause}"})

    def visible(self, wrong: dict[str, Wrong]) -> Iterator[tuple[str, Severity, set[Pair]]]:
        for cause, (severity, clients) in wrong.items():
            pairs = {
                (cause, client, kind)
                for client, kind in clients
                if not self.is_muted(cause, client, severity)
            }
            if pairs:
                yield cause, severity, pairs

    def note(self, now: int, wrong: dict[str, Wrong]) -> None:
        """Since when what is wrong now should be known."""
        for cause, (severity, _) in wrong.items():
            before = self.were.get(cause)
            rose = before is not None and (before[0], severity) == (WARN, ERROR)
            began_again = before is None and now - self.ended_at.get(cause, -DAY) < DAY
            if began_again or (rose and cause in self.eased):
                self.came_back_at[cause] = now
            if before is not None and (before[0], severity) == (ERROR, WARN):
                self.eased.add(cause)
            if before is None or rose:
                self.began[cause].append(now)
        before_pairs, pairs_now = pairs_of(self.were), pairs_of(wrong)
        for it in pairs_now - before_pairs:
            if now - self.left_at.get(it, -DAY) < DAY:
                self.came_back_at[it[0]] = now
        self.ended_at |= dict.fromkeys(self.were.keys() - wrong.keys(), now)
        self.left_at |= dict.fromkeys(before_pairs - pairs_now, now)
        self.were = wrong
        errors: dict[str, int] = {}
        pairs: dict[Pair, int] = {}
        for cause, severity, seen in self.visible(wrong):
            clients = {client for _, client, _ in seen}
            cause_of_it = {client for client, _ in wrong["sync"][1]} if "sync" in wrong else set()
            if cause == "freshness" and clients <= cause_of_it:
                self.held_until[cause] = now + 2
            if severity is ERROR and now >= self.held_until.get(cause, 0):
                errors[cause] = self.errors_since.get(cause, now)
                pairs |= {it: self.pairs_since.get(it, now) for it in seen}
        self.errors_since, self.pairs_since = errors, pairs

    def send(self, current: Current, receiver: str, now: int, moment: datetime) -> Current:
        due = due_notices(current, receiver, remind_after=timedelta(hours=12), now=moment)
        assert len({it.state.cause for it in due}) == len(due)
        for notice in due:
            self.read(notice, receiver, now)
        after = {it.state.cause: after_notice(it, receiver, moment) for it in due}
        return replace(current, states={**current.states, **after})

    def read(self, notice: Notice, receiver: str, now: int) -> None:
        """What the receiver makes of a message."""
        cause = notice.state.cause
        self.sent[receiver, cause].append(now)
        known = self.known.get((receiver, cause))
        assert (known is None) == (notice.kind is NoticeKind.NEW), "opened and closed in turns"
        if notice.problem is None:
            assert known is not None
            assert cause not in self.were
            # All receivers get the same end, with every client that any of them was notified of.
            told = [it for it in self.told_before if it[0] == cause]
            muted = all(self.is_muted(cause, it, known.severity) for _, it, _ in told)
            assert not muted or self.was_told_since(cause, known), "its end, while it is muted"
            self.repeated[receiver, cause].append(now)
            del self.known[receiver, cause]
            return
        shown = notice.problem
        pairs = {(cause, it.client, it.kind) for it in shown.reasons}
        assert not any(self.is_muted(cause, it, shown.severity) for it in shown.clients)
        assert now >= self.held_until.get(cause, 0), "a symptom, beside its cause"
        if known is not None and notice.kind is NoticeKind.WORSE:
            rose = known.severity is WARN and shown.severity is ERROR
            assert notice.joined or rose or shown.severity is ERROR
            assert set(notice.joined) <= set(shown.clients)
        day_ago = now - DAY
        is_first = any(self.last_told.get((receiver, it), day_ago) <= day_ago for it in pairs)
        if not (notice.kind is NoticeKind.WORSE and is_first):
            self.repeated[receiver, cause].append(now)
        recent = [it for it in self.repeated[receiver, cause] if it > day_ago]
        assert len(recent) <= 6, f"{len(recent)} messages a day about {cause}"
        # A receiver that was down may not have known of the times before.
        times = len([it for it in self.began[cause] if it > day_ago])
        assert notice.flaps <= times
        assert notice.flaps != 1
        self.last_told |= {(receiver, it): now for it in pairs}
        before = set() if known is None else known.pairs
        self.known[receiver, cause] = Known(shown.severity, before | pairs, now)

    def was_told_since(self, cause: str, known: Known) -> bool:
        """Whether it was notified after the mutes of it were made."""
        made = [
            it.muted_at
            for name, it in self.mutes.items()
            if it.muted_at and name in (cause, *names_of(cause, dict.fromkeys(CLIENTS, "")))
        ]
        return START + known.told_at * ROUND > min(made)

    def assert_informed(self, receiver: str, now: int) -> None:
        up = self.up_since[receiver]
        for cause, since in self.errors_since.items():
            if now - max(since, up) > GRACE[cause]:
                known = self.known.get((receiver, cause))
                assert known is not None, f"{cause} is an ERROR, and {receiver} does not know"
                assert known.severity is ERROR
        for pair, since in self.pairs_since.items():
            if now - max(since, up) > GRACE[pair[0]] + HOUR:
                known = self.known.get((receiver, pair[0]))
                assert known is not None
                # One that comes and goes may have to wait for a day.
                sent = [it for it in self.sent[receiver, pair[0]] if it > now - DAY]
                was_told = (receiver, pair) in self.last_told
                may_wait = len(sent) >= 5 and was_told
                assert pair in known.pairs or may_wait, f"{receiver} does not know {pair}"
        for cause in {it for of, it in self.known if of == receiver} - self.were.keys():
            # The end of what did not come back is notified at once.
            times = len([it for it in self.began[cause] if it > now - DAY])
            if times <= 1 and now - self.came_back_at.get(cause, -DAY) >= DAY:
                assert any(self.is_muted(cause, it, WARN) for it in CLIENTS), (
                    f"the end of {cause} is late"
                )


def pairs_of(wrong: dict[str, Wrong]) -> set[Pair]:
    return {(cause, *it) for cause, (_, clients) in wrong.items() for it in clients}


def names_of(cause: str, clients: dict[str, str]) -> Iterator[str]:
    for client in clients:
        yield from (client, f"{client}:{cause}")


def as_problem(cause: str, wrong: Wrong) -> Problem:
    severity, clients = wrong
    lines = tuple(Line(kind or "old", (client,), kind) for client, kind in clients)
    follows = {"follows": "sync", "hold": 2 * ROUND} if cause == "freshness" else {}
    grace = GRACE[cause] * ROUND
    names = [client for client, _ in clients]
    return problem(cause, *names, severity=severity, lines=lines, grace=grace, **follows)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(weeks())
def test_in_random_weeks_every_error_is_notified_within_a_round_and_closed_once(
    week: tuple[list[Episode], list[Silence], list[Outage]],
) -> None:
    Week(*week).run()
