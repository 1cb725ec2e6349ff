"""Deletes what nobody needs any more: old bodies and files, and events that raise no number."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection

from kpi_pipeline.db.events.stored import delete_finished, drop_bodies, end_of_page
from kpi_pipeline.domain.calendar import business_date, first_of_previous_month
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.inbox.files import delete_old_files
from kpi_pipeline.inbox.ingest import Inbox

# Events in one transaction: the rows of their clients are locked for a moment at most.
_BATCH = 2_000


@dataclass(frozen=True)
class Deleted:
    """How many bodies, events and files were deleted."""

    bodies: int
    events: int
    files: int

    def sentence(self, days: int) -> str:
        """What was deleted, for people; bodies and files were older than `days`."""
        return (
            f"Deleted: the bodies of {counted(self.bodies, 'event')} and "
            f"{counted(self.files, 'file')} older than {days} days, and "
            f"{counted(self.events, 'event')} that raise no number any more."
        )


def apply_retention(inbox: Inbox, folder: Path, *, days: int) -> Deleted:
    """Delete bodies and files that are older than `days`, and events that are finished.

    `folder` is the one into which files of events are dropped.
    """
    return Deleted(
        events=delete_finished_events(inbox),
        bodies=purge(inbox, older_than_days=days),
        files=delete_old_files(folder, older_than_days=days),
    )


def purge(inbox: Inbox, *, older_than_days: int) -> int:
    """Drop the bodies of events that arrived more than `older_than_days` days ago; return how many.

    Names, addresses and the texts of mails go with them. The idempotency key and all that the
    numbers are computed from stay.
    """
    before = inbox.now() - timedelta(days=older_than_days)

    def drop(connection: Connection, after: int, last: int) -> int:
        return drop_bodies(connection, after, last, before=before)

    return _page_by_page(inbox, drop)


def delete_finished_events(inbox: Inbox) -> int:
    """Delete the events that raise no number in any row that can change; return how many.

    They are of a day before last month, and the facts of the day hold them, or they never counted.
    An event that comes once more after that counts until its day's facts are fetched again.
    """
    now = inbox.now()
    before = first_of_previous_month(business_date(now, inbox.day_zone))

    def delete(connection: Connection, after: int, last: int) -> int:
        return delete_finished(connection, after, last, before=before, now=now)

    return _page_by_page(inbox, delete)


def _page_by_page(inbox: Inbox, work: Callable[[Connection, int, int], int]) -> int:
    """Do `work` for all ids, a page of them in each transaction; return the sum of its results.

    The pages follow the primary key: an index on the bodies would cost each event more than the
    reading of the whole table costs a night.
    """
    after, done = 0, 0
    while True:
        with inbox.engine.begin() as connection:
            last = end_of_page(connection, after, _BATCH)
            if last is None:
                return done
            done += work(connection, after, last)
        after = last
