"""The columns of the overview: what each is called, where it belongs, and how it is shown."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from markupsafe import Markup

from kpi_pipeline.domain.columns import MEANINGS


class Kind(StrEnum):
    """How a column is shown."""

    COUNT = "count"
    PERCENT = "percent"
    RATE = "rate"
    GROWTH = "growth"
    BAR = "bar"
    EMAILS = "emails"
    QUOTA = "quota"
    SPARK = "spark"
    AGE = "age"


@dataclass(frozen=True)
class Column:
    """A column. `key` names it in addresses; `by` is the number of the row that sorts it.

    `head` is its heading in the table and `name` in the list of columns; `minor` ones are left out
    of a narrow table.
    """

    key: str
    head: str
    name: str
    group: str
    kind: Kind = Kind.COUNT
    by: str | None = None
    shown: bool = False
    minor: bool = False

    @cached_property
    def css(self) -> Markup:
        """The classes of its cells."""
        return Markup("k-{}{}").format(self.kind, " opt" if self.minor else "")

    @property
    def is_bar(self) -> bool:
        """Whether its cells hold a bar."""
        return self.kind is Kind.BAR

    @property
    def meaning(self) -> str:
        """What the column holds, in a sentence without a period."""
        return _MEANINGS.get(self.key) or MEANINGS[self.key]


REPLIES, EMAILS, RATES, DATA = "Positive replies", "Emails sent", "Replies and rates", "Data"

_ALL = (
    Column("of_target", "Positive replies of target", "of target, with bar", REPLIES, Kind.BAR,
           "mtd_leads_progress", shown=True),
    Column("projection_positive_replies_eom", "Projected", "projection", REPLIES,
           by="projection_positive_replies_eom", shown=True),
    Column("positive_replies_today", "On the day", "on the day", REPLIES),
    Column("positive_replies_last_7_days", "7 days", "7 days", REPLIES, shown=True),
    Column("positive_replies_last_14_days", "14 days", "14 days", REPLIES, shown=True, minor=True),
    Column("positive_replies_last_30_days", "30 days", "30 days", REPLIES, shown=True, minor=True),
    Column("positive_replies_last_month", "Last month", "last month", REPLIES, shown=True,
           minor=True),
    Column("last_week_vs_week_before_progress", "Week on week", "week on week", REPLIES,
           Kind.GROWTH, shown=True),
    Column("positive_replies_mtd", "Month", "month to date", REPLIES),
    Column("positive_replies_current_month", "Current month", "current month (the same)", REPLIES),
    Column("monthly_kpi_target", "Target", "target", REPLIES),
    Column("mtd_leads_progress", "Of target", "in % of target", REPLIES, Kind.PERCENT),
    Column("projection_replies_progress", "Projected of target", "projection in % of target",
           REPLIES, Kind.PERCENT),
    Column("emails_of_target", "Emails of target", "of sending target", EMAILS, Kind.EMAILS,
           "sending_progress", shown=True),
    Column("daily_quota", "Left a day", "daily quota that is left", EMAILS, Kind.QUOTA, shown=True,
           minor=True),
    Column("emails_sent_today", "Emails on the day", "on the day", EMAILS),
    Column("emails_scheduled_today", "Planned", "planned for the day", EMAILS),
    Column("emails_scheduled_tomorrow", "Planned next", "planned for the next day", EMAILS),
    Column("emails_sent_last_7_days", "Emails 7 days", "7 days", EMAILS),
    Column("emails_sent_last_14_days", "Emails 14 days", "14 days", EMAILS),
    Column("emails_sent_last_30_days", "Emails 30 days", "30 days", EMAILS),
    Column("emails_sent_mtd", "Emails", "month to date", EMAILS),
    Column("projection_emails_eom", "Emails projected", "projection", EMAILS),
    Column("monthly_sending_target", "Sending target", "sending target", EMAILS),
    Column("sending_progress", "Sent of target", "in % of target", EMAILS, Kind.PERCENT),
    Column("projection_sending_progress", "Emails projected of target", "projection in % of target",
           EMAILS, Kind.PERCENT),
    Column("all_replies_mtd", "Replies", "replies of any kind", RATES),
    Column("reply_rate_mtd", "Reply rate", "reply rate", RATES, Kind.RATE, shown=True, minor=True),
    Column("positive_rate_mtd", "Positive rate", "positive reply rate", RATES, Kind.RATE),
    Column("bounced_mtd", "Bounces", "bounces", RATES),
    Column("bounce_rate_mtd", "Bounce rate", "bounce rate", RATES, Kind.RATE, shown=True,
           minor=True),
    Column("unsubscribed_mtd", "Unsubscribes", "unsubscribes", RATES),
    Column("sparkline", "60 days", "60 days of positive replies", DATA, Kind.SPARK, shown=True),
    Column("age", "Age", "age of the data", DATA, Kind.AGE, "as_of", shown=True, minor=True),
)  # fmt: skip
COLUMNS = {it.key: it for it in _ALL}
SHOWN = tuple(it.key for it in _ALL if it.shown)
GROUPS = tuple(dict.fromkeys(it.group for it in _ALL))
SORTABLE = {it.key: it.by or it.key for it in _ALL if it.kind is not Kind.SPARK} | {"name": "name"}

_MEANINGS = {
    "of_target": "positive replies of the month, of its target; pale: the projection",
    "emails_of_target": "emails of the month, of its sending target",
    "daily_quota": "emails a day that are needed from this day on to reach the sending target",
    "sparkline": "positive replies a day over 60 days, as the mean of 7 days",
    "age": "how long ago Email Bison was asked, or an event changed the row",
}
