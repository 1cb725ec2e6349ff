"""The numbers of a client's row, worked out from daily facts. No other file defines one.

The definitions are the agency's. Two rules hold throughout: a number is a pure function of facts
and targets, and missing is not zero, so a window with a day that no fact tells of is NULL.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pandas as pd

from kpi_pipeline import business_days
from kpi_pipeline.columns import FACT_COUNTS, METRIC_COLUMNS, PERCENTAGES

_COLUMNS = ["workspace", "metric_date", *METRIC_COLUMNS, "monthly_kpi_target", "as_of"]


def compute(
    facts: pd.DataFrame, targets: pd.DataFrame, dates: Sequence[date], tz: ZoneInfo
) -> pd.DataFrame:
    """Return one row of numbers for each workspace and each of `dates` that the facts hold.

    A date without facts of its own gives no row; a window that lacks another day is NULL. Every
    window ends on the metric date and includes it, last month's aside.

    `facts` has a row for each workspace and day, in any order: workspace, date (a business day of
    `tz`), the counts of FACT_COUNTS, and as_of, the aware instant at which they were asked for. It
    must reach back as far as `business_days.fetch_period` says, or the windows that it cuts short
    are NULL. `targets` has workspace, holds_from (the first day of a month) and monthly_kpi_target
    (positive replies a month, or none). A month's target is the latest that holds from its first
    day or before; a target of 0 is shown as it stands, but no percentage is taken of it.

    The rows are sorted by workspace and metric_date. Their columns are those two, METRIC_COLUMNS,
    monthly_kpi_target, and as_of (of the metric date's own facts, in UTC). Counts are nullable
    integers; percentages are Decimals with two places, or None, rounded half away from zero as
    PostgreSQL's round(numeric, 2) does.

    Raises ValueError when facts hold a day of a workspace twice, a negative or missing count, or an
    as_of without a time zone, or when targets hold a month of a workspace twice.
    """
    facts = _checked_facts(facts)
    rows = facts[facts["day"].isin([day.toordinal() for day in dates])]
    rows = rows.sort_values(["workspace", "day"], ignore_index=True)
    if rows.empty:
        return _no_rows()
    calendar = _calendar(rows["day"], tz)
    day, month_start = rows["day"], calendar["month_start"]
    running = _RunningTotals(facts, rows["workspace"])
    month = running.over(month_start, day)
    last_month = running.over(calendar["last_month_start"], month_start - 1)

    numbers: dict[str, pd.Series] = {
        "workspace": rows["workspace"],
        "metric_date": calendar["date"],
        "emails_sent_mtd": month["sent"],
        "positive_replies_mtd": month["interested"],
        "all_replies_mtd": month["replied"],
        "bounced_mtd": month["bounced"],
        "unsubscribed_mtd": month["unsubscribed"],
        "emails_sent_today": rows["sent"].astype("Int64"),
        "positive_replies_today": rows["interested"].astype("Int64"),
        "positive_replies_last_month": last_month["interested"],
        "positive_replies_current_month": month["interested"],
        "as_of": rows["as_of"],
    }
    for length in (7, 14, 30):
        window = running.over(day - (length - 1), day)
        numbers[f"emails_sent_last_{length}_days"] = window["sent"]
        numbers[f"positive_replies_last_{length}_days"] = window["interested"]

    replies = month["interested"]
    elapsed = _elapsed(rows["as_of"], calendar, tz)
    whole_month = calendar["days_in_month"] * calendar["seconds"]
    projected_replies = _divided(replies * whole_month, elapsed)
    numbers["projection_positive_replies_eom"] = projected_replies
    numbers["projection_emails_eom"] = _divided(month["sent"] * whole_month, elapsed)

    target = _targets_of(rows["workspace"], month_start, targets)
    numbers["monthly_kpi_target"] = target
    numbers["mtd_leads_progress"] = _percent(replies, target)
    numbers["projection_replies_progress"] = _percent(projected_replies, target)
    last_week = numbers["positive_replies_last_7_days"]
    week_before = numbers["positive_replies_last_14_days"] - last_week
    growth = _percent(last_week - week_before, week_before)
    numbers["last_week_vs_week_before_progress"] = growth
    return pd.DataFrame(numbers)[_COLUMNS]


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return a frame's rows as plain Python values, ready for a database driver.

    Values are str, int, Decimal, date or datetime, and None wherever pandas marks one as missing.
    """
    columns = [map(_plain, frame[name].tolist()) for name in frame.columns]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(value: object) -> object:
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def _no_rows() -> pd.DataFrame:
    counts = [*METRIC_COLUMNS, "monthly_kpi_target"]
    types = dict.fromkeys(counts, "Int64") | dict.fromkeys(PERCENTAGES, "object")
    return pd.DataFrame(columns=_COLUMNS).astype({**types, "as_of": "datetime64[us, UTC]"})


def _checked_facts(facts: pd.DataFrame) -> pd.DataFrame:
    """Return the facts with `day`, their date's ordinal number, or raise ValueError."""
    counts = list(FACT_COUNTS)
    for wrong, complaint in (
        (facts.duplicated(["workspace", "date"]), "stands in the facts twice"),
        ((facts[counts].fillna(-1) < 0).any(axis=1), "has a negative or missing count"),
        (~_is_aware(facts["as_of"]), "has an as_of without a time zone"),
    ):
        if wrong.any():
            first = facts[wrong].iloc[0]
            raise ValueError(f"{first['workspace']} on {first['date']} {complaint}.")
    return pd.DataFrame(
        {
            "workspace": facts["workspace"],
            "day": _ordinals(facts["date"]),
            **{count: facts[count].astype("int64") for count in counts},
            "as_of": pd.to_datetime(facts["as_of"], utc=True).dt.as_unit("us"),
        }
    )


def _is_aware(instants: pd.Series) -> pd.Series:
    if instants.dtype == object:
        aware = [isinstance(it, datetime) and it.tzinfo is not None for it in instants]
        return pd.Series(aware, index=instants.index, dtype=bool)
    return instants.notna() & isinstance(instants.dtype, pd.DatetimeTZDtype)


def _ordinals(dates: pd.Series) -> pd.Series:
    return dates.map(date.toordinal).astype("int64")


def _calendar(days: pd.Series, tz: ZoneInfo) -> pd.DataFrame:
    """Return what the calendar says of each of `days`, which are ordinal numbers like its own."""
    known = []
    for number in days.unique().tolist():
        day = date.fromordinal(number)
        month_start = business_days.first_of_month(day)
        known.append(
            {
                "day": number,
                "date": day,
                "month_start": month_start.toordinal(),
                "last_month_start": business_days.first_of_previous_month(day).toordinal(),
                "days_before": (day - month_start).days,
                "days_in_month": business_days.days_in_month(day),
                "seconds": business_days.day_length(day, tz) // timedelta(seconds=1),
            }
        )
    return pd.DataFrame(known).set_index("day").loc[days].reset_index(drop=True)


class _RunningTotals:
    """Sums of a count over any run of days, each the difference of two running totals.

    The totals run over a grid without gaps: each workspace, and each day from the eve of the first
    fact to the last. A day that no fact tells of adds 0, and is missing from the number of days
    told, which shows that a sum over it is not whole.
    """

    def __init__(self, facts: pd.DataFrame, workspaces: pd.Series) -> None:
        """Add up `facts`, for rows that belong to `workspaces`, one each."""
        self._eve = facts["day"].min() - 1
        days = range(self._eve, facts["day"].max() + 1)
        names = facts["workspace"].unique()
        told = facts.set_index(["workspace", "day"])[list(FACT_COUNTS)].assign(days_told=1)
        grid = pd.MultiIndex.from_product([names, days])
        self._totals = told.reindex(grid, fill_value=0).to_numpy().T.cumsum(axis=1)
        self._offset = pd.Index(names).get_indexer(workspaces) * len(days)

    def over(self, first: pd.Series, last: pd.Series) -> dict[str, pd.Series]:
        """Return each row's sums from `first` to `last` (ordinals), NULL where a day is missing."""
        until, before = (
            self._offset + day.to_numpy().clip(self._eve) - self._eve for day in (last, first - 1)
        )
        *sums, days_told = self._totals[:, until] - self._totals[:, before]
        missing = days_told != (last - first + 1).to_numpy()
        return {
            count: pd.Series(pd.arrays.IntegerArray(total, missing.copy()))
            for count, total in zip(FACT_COUNTS, sums, strict=True)
        }


def _elapsed(as_of: pd.Series, calendar: pd.DataFrame, tz: ZoneInfo) -> pd.Series:
    """Return how much of its month had passed for each row, in whole seconds, at least one day.

    That is the days before the metric date and the part of it that had passed at `as_of`. Each day
    of the month counts as long as the metric date, so that this is days elapsed times its length.
    """
    second = timedelta(seconds=1)
    today = pd.Series(
        [
            business_days.elapsed(day, asked.to_pydatetime(), tz) // second
            for day, asked in zip(calendar["date"], as_of, strict=True)
        ]
    )
    return (calendar["days_before"] * calendar["seconds"] + today).clip(lower=calendar["seconds"])


def _targets_of(workspaces: pd.Series, month_starts: pd.Series, targets: pd.DataFrame) -> pd.Series:
    """Return each row's target: its workspace's latest that holds from its month or before."""
    twice = targets.duplicated(["workspace", "holds_from"])
    if twice.any():
        first = targets[twice].iloc[0]
        raise ValueError(f"{first['workspace']} has two targets from {first['holds_from']}.")
    history = pd.DataFrame(
        {
            "workspace": targets["workspace"].astype("str"),
            "month_start": _ordinals(targets["holds_from"]),
            "target": targets["monthly_kpi_target"].astype("Int64"),
        }
    ).sort_values("month_start")
    rows = pd.DataFrame({"workspace": workspaces.astype("str"), "month_start": month_starts})
    found = pd.merge_asof(
        rows.reset_index().sort_values("month_start"), history, on="month_start", by="workspace"
    )
    return found.set_index("index")["target"].sort_index()


def _percent(part: pd.Series, whole: pd.Series) -> pd.Series:
    """Return part ÷ whole × 100 as Decimals with two places; None unless `whole` is above 0."""
    hundredths = _divided(part.abs() * 10_000, whole.where(whole > 0))
    signed = hundredths.where(part >= 0, -hundredths)
    decimals = [None if it is pd.NA else Decimal(it).scaleb(-2) for it in signed.tolist()]
    return pd.Series(decimals, dtype=object)


def _divided(amount: pd.Series, by: pd.Series) -> pd.Series:
    """Return amount ÷ by, rounded half up: exact, for integers from 0 on and divisors above 0."""
    return (2 * amount + by) // (2 * by)
