"""Ten thousand events through two gateways, while syncs run over the very same leads."""

import asyncio
import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text

from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline_tests.agency import Agency, Rows, agency_on, differences
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.expected import expected_rows
from kpi_pipeline_tests.gateway.support import GatewayProcess, gateway_processes

pytestmark = [pytest.mark.long, pytest.mark.weekly]

LEADS, DUPLICATES = 7_000, 3_000
ROUNDS, WAVES = 2, 4
_REST_SECONDS, _COMPARE_EVERY_SECONDS = 5.0, 1.0
# Far longer than a gateway waits for a sync of the client.
_APPLIED_WITHIN = timedelta(seconds=5)


@pytest.fixture
def agency(database: URL, bison: Bison, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agency]:
    """The agency on the tests' own server."""
    # The sandbox's clock stands still in March: no time in a body may date an event of today.
    bison.variants(lead_campaign_event="replied")
    with agency_on(database, bison, monkeypatch) as agency:
        yield agency


@dataclass
class Lead:
    """A lead that was marked: the body of its event, and when it was first acknowledged."""

    workspace: str
    marked_at: datetime
    body: Mapping[str, Any]
    acknowledged_at: datetime | None = None

    def content(self, chance: random.Random) -> bytes:
        """Its body as it is sent once: in either casing."""
        event = dict(self.body["event"])
        event["type"] = chance.choice([str.lower, str.upper])(event["type"])
        return json.dumps({**self.body, "event": event}).encode()


@dataclass
class Ledger:
    """All leads that were marked, which another thread reads, too."""

    leads: list[Lead] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, leads: Sequence[Lead]) -> None:
        """Leads that were just marked."""
        with self.lock:
            self.leads.extend(leads)

    def snapshot(self) -> list[tuple[str, datetime, datetime | None]]:
        """Client, moment of marking and of the first acknowledgement, of each."""
        with self.lock:
            return [(lead.workspace, lead.marked_at, lead.acknowledged_at) for lead in self.leads]


def send(gateways: Sequence[GatewayProcess], leads: Sequence[Lead], chance: random.Random) -> None:
    """Send the events to any of the gateways, many at once; each is answered with 200."""

    async def all_of_them() -> None:
        places = asyncio.Semaphore(40)
        async with httpx.AsyncClient(timeout=120, trust_env=False) as client:

            async def one(lead: Lead, url: str, content: bytes) -> None:
                async with places:
                    answer = await client.post(url, content=content)
                assert answer.status_code == 200, answer.text
                lead.acknowledged_at = lead.acknowledged_at or utc_now()

            await asyncio.gather(
                *(one(it, chance.choice(gateways).url, it.content(chance)) for it in leads)
            )

    asyncio.run(all_of_them())


class Syncs:
    """Syncs of all clients × yesterday and today, one after the other, until they are over."""

    def __init__(self, agency: Agency) -> None:
        self.agency = agency
        self.periods: list[tuple[datetime, datetime]] = []
        self._over = threading.Event()
        self._errors: list[BaseException] = []

    def once(self) -> None:
        """One sync."""
        today = self.agency.today
        started_at = utc_now()
        self.agency.synced([today - timedelta(days=1), today])
        self.periods.append((started_at, utc_now()))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Syncs in a thread, while the block lasts."""
        self._over.clear()
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
        assert self._errors == []

    def _run(self) -> None:
        try:
            while not self._over.wait(_REST_SECONDS):
                self.once()
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            self._errors.append(error)

    def end_of(self, as_of: datetime) -> datetime:
        """When the sync was over that asked for facts at this moment."""
        ends = [end for start, end in list(self.periods) if start <= as_of <= end]
        return ends[0] if ends else utc_now()


class Observer:
    """Compares today's rows, while all goes on, with what can be true of them."""

    def __init__(self, agency: Agency, syncs: Syncs, ledger: Ledger) -> None:
        self._agency, self._syncs, self._ledger = agency, syncs, ledger
        self._base = {workspace: replies for workspace, replies, _ in self._read()}
        self.comparisons = 0
        self.wrong: list[str] = []

    def compare(self) -> None:
        """Compare each client's number with the leads that were marked and acknowledged by now.

        The events of a client that is busy are acknowledged a moment before they are applied.
        """
        shown = utc_now() - _APPLIED_WITHIN
        before = Counter(
            name
            for name, _, acknowledged_at in self._ledger.snapshot()
            if acknowledged_at and acknowledged_at < shown
        )
        rows = self._read()
        leads: dict[str, list[tuple[datetime, datetime | None]]] = defaultdict(list)
        for name, marked_at, acknowledged_at in self._ledger.snapshot():
            leads[name].append((marked_at, acknowledged_at))
        self.comparisons += 1
        for workspace, replies, as_of in rows:
            fetched = self._syncs.end_of(as_of)
            # Held by the facts, and arrived after they were asked for: counted twice till the next.
            under_way = sum(
                marked_at <= fetched and (acknowledged_at is None or acknowledged_at > as_of)
                for marked_at, acknowledged_at in leads[workspace]
            )
            more = replies - self._base[workspace]
            least, most = before[workspace], len(leads[workspace]) + under_way
            if not least <= more <= most:
                self.wrong.append(f"{workspace}: {more} is not from {least} to {most}")

    def _read(self) -> Sequence[tuple[str, int, datetime]]:
        statement = text(
            "SELECT workspace, positive_replies_today, as_of FROM client_metrics "
            "WHERE metric_date = :today"
        )
        with self._agency.app.engine.connect() as connection:
            found = connection.execute(statement, {"today": self._agency.today})
            return [(row[0], row[1], row[2]) for row in found]


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Compare once a second, while the block lasts."""
    over = threading.Event()

    def compare() -> None:
        while not over.wait(_COMPARE_EVERY_SECONDS):
            observer.compare()

    thread = threading.Thread(target=compare)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def mark(agency: Agency, leads: int, chance: random.Random) -> list[Lead]:
    """Mark leads of clients by chance; nothing is sent."""
    counts = Counter(chance.choices(agency.workspaces, k=leads))
    rows = {int(row["bison_workspace_id"]): row for row in agency.bison.clients()}
    marked: list[Lead] = []
    for workspace, count in counts.items():
        bodies = agency.bison.mark(rows[agency.ids[workspace]], leads=count, deliver=False)
        now = utc_now()
        marked += [Lead(workspace, now, body) for body in bodies]
    return marked


def truth(agency: Agency) -> Rows:
    """What every number must be, given when its facts were asked for."""
    today = agency.today
    as_of = {workspace: row["as_of"] for (workspace, day), row in agency.rows().items()
             if day == today}  # fmt: skip
    clients: Mapping[str, tuple[int, str | None, int | None]] = {
        slug: (agency.ids[slug], agency.key(slug), agency.target(slug))
        for slug in agency.workspaces
    }
    return expected_rows(
        str(agency.bison.http.base_url),
        agency.bison.master_key,
        clients,
        [today - timedelta(days=1), today],
        agency.app.timezone,
        utc_now(),
        as_of=as_of,
    )


def pour(
    agency: Agency, running: Sequence[GatewayProcess], ledger: Ledger, chance: random.Random
) -> int:
    """Mark a wave of leads, and send them with some that were sent before; how many were sent."""
    new = mark(agency, LEADS // (ROUNDS * WAVES), chance)
    ledger.add(new)
    again = chance.choices(ledger.leads, k=DUPLICATES // (ROUNDS * WAVES))
    wave = [*new, *again]
    chance.shuffle(wave)
    send(running, wave, chance)
    return len(wave)


@pytest.mark.timeout(1_200)
def test_ten_thousand_events_count_once_each_whatever_syncs_run_between_them(
    agency: Agency, tmp_path: Path
) -> None:
    chance = random.Random(10_000)
    syncs = Syncs(agency)
    syncs.once()
    ledger = Ledger()
    observer = Observer(agency, syncs, ledger)
    sent = 0
    with gateway_processes(tmp_path, 2) as running:
        for _ in range(ROUNDS):
            with syncs.running(), observing(observer):
                for _ in range(WAVES):
                    sent += pour(agency, running, ledger, chance)
            # A quiet moment, and the sync that follows it.
            syncs.once()
            assert differences(agency.rows(), truth(agency)) == []

    assert observer.wrong == []
    assert observer.comparisons > 5
    assert len(syncs.periods) > 2 * ROUNDS
    with agency.app.engine.connect() as connection:
        counted = connection.execute(
            text("SELECT status, count(*), sum(deliveries) FROM webhook_events GROUP BY status")
        ).all()
    assert [tuple(row) for row in counted] == [("applied", LEADS, sent)]
    assert sent == LEADS + DUPLICATES
