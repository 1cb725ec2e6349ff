"""What `client_metrics` must hold, worked out another way than the pipeline does.

Every window is asked of Email Bison's own totals (`stats`), never added up from daily facts, and
the rest is written out by hand: nothing is imported from the pipeline. Those totals count people
who replied; the number of their mails is what the sandbox itself knows.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from math import floor
from typing import Any
from zoneinfo import ZoneInfo

import httpx

Row = dict[str, Any]
_DAY = timedelta(days=1)
_STATS = {
    "emails_sent": "emails_sent",
    "positive_replies": "interested",
    "bounced": "bounced",
    "unsubscribed": "unsubscribed",
}


def expected_rows(
    base_url: str,
    master_key: str,
    workspaces: Mapping[str, tuple[int, str | None, int | None]],
    dates: Sequence[date],
    tz: ZoneInfo,
    now: datetime,
    *,
    as_of: Mapping[str, datetime] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> dict[tuple[str, date], Row]:
    """The number columns of each (workspace, metric date), as they stand after a sync at `now`.

    `workspaces` has, for each slug, its id in Bison, its API key or None, and its monthly target
    or None. For one without a key a new one is made with the master key: nothing is switched.
    `as_of` is when a workspace's facts were asked for, where that was not `now`; it moves today's
    projections. Sending plans are on today's row alone, so no earlier day must have been synced
    while it was today. Counts are int, percentages Decimal with two places.

    Raises httpx.HTTPStatusError for a key that Bison doesn't take.
    """
    today = now.astimezone(tz).date()
    rows = {}
    with httpx.Client(base_url=base_url, timeout=30, transport=transport) as http:
        for slug, (bison_id, key, target) in workspaces.items():
            bison = _Workspace(http, bison_id, key or _new_key(http, master_key, bison_id))
            asked_at = (as_of or {}).get(slug, now)
            for day in dates:
                row = _numbers(bison, day, target, _days_elapsed(day, asked_at, tz))
                for name in ("today", "tomorrow"):
                    row[f"emails_scheduled_{name}"] = bison.planned(name) if day == today else None
                rows[slug, day] = row
    return rows


class _Workspace:
    """One workspace's totals, as Bison itself adds them up; each window is asked for once."""

    def __init__(self, http: httpx.Client, bison_id: int, key: str) -> None:
        self._http = http
        self._id = bison_id
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self.total = cache(self._total)
        self.planned = cache(self._planned)

    def _total(self, first: date, last: date) -> dict[str, int]:
        params = {"start_date": first.isoformat(), "end_date": last.isoformat()}
        answer = self._get("/api/workspaces/v1.1/stats", params).raise_for_status()
        return {name: int(answer.json()["data"][field]) for name, field in _STATS.items()}

    def replies(self, first: date, last: date) -> int:
        """How many mails were replies."""
        params = {"start_date": first.isoformat(), "end_date": last.isoformat()}
        known = self._get("/sandbox/counts", params | {"workspace_id": str(self._id)})
        return int(known.raise_for_status().json()["replied"])

    def _planned(self, day: str) -> int:
        planned: int = 0
        params = {"day": day}
        while True:
            answer = self._get("/api/campaigns/sending-schedules", params)
            if answer.status_code == 400 and "No emails scheduled" in answer.text:
                return 0
            body = answer.raise_for_status().json()
            planned += sum(row["emails_being_sent"] for row in body["data"])
            meta = body.get("meta", {})
            if cursor := meta.get("next_cursor"):
                params["cursor"] = cursor
            elif meta.get("current_page", 1) < meta.get("last_page", 1):
                params["page"] = str(meta["current_page"] + 1)
            else:
                return planned

    def _get(self, path: str, params: dict[str, str]) -> httpx.Response:
        return self._http.get(path, params=params, headers=self._headers)


def _new_key(http: httpx.Client, master_key: str, bison_id: int) -> str:
    answer = http.post(
        f"/api/workspaces/v1.1/{bison_id}/api-tokens",
        json={"name": "an independent reading"},
        headers={"Authorization": f"Bearer {master_key}"},
    )
    token: str = answer.raise_for_status().json()["data"]["plain_text_token"]
    return token


def _numbers(bison: _Workspace, day: date, target: int | None, days_elapsed: Fraction) -> Row:
    first = day.replace(day=1)
    month = bison.total(first, day)
    row: Row = {f"{name}_mtd": count for name, count in month.items()}
    row["all_replies_mtd"] = bison.replies(first, day)
    for name in ("emails_sent", "positive_replies"):
        row[f"{name}_today"] = bison.total(day, day)[name]
        for length in (7, 14, 30):
            window = bison.total(day - (length - 1) * _DAY, day)
            row[f"{name}_last_{length}_days"] = window[name]
    month_before = bison.total((first - _DAY).replace(day=1), first - _DAY)
    row["positive_replies_last_month"] = month_before["positive_replies"]
    row["positive_replies_current_month"] = month["positive_replies"]

    days_in_month = ((first + 31 * _DAY).replace(day=1) - first).days
    projected = {
        name: _half_up(Fraction(month[name] * days_in_month) / days_elapsed)
        for name in ("emails_sent", "positive_replies")
    }
    row["projection_emails_eom"] = projected["emails_sent"]
    row["projection_positive_replies_eom"] = projected["positive_replies"]

    row["monthly_kpi_target"] = target
    row["mtd_leads_progress"] = _percent(month["positive_replies"], target)
    row["projection_replies_progress"] = _percent(projected["positive_replies"], target)
    week = bison.total(day - 6 * _DAY, day)["positive_replies"]
    week_before = bison.total(day - 13 * _DAY, day - 7 * _DAY)["positive_replies"]
    row["last_week_vs_week_before_progress"] = _percent(week - week_before, week_before)
    return row


def _days_elapsed(day: date, as_of: datetime, tz: ZoneInfo) -> Fraction:
    """Days of the month that had passed at `as_of`, `day` itself included as far as it had."""
    midnight, next_midnight = (
        datetime(it.year, it.month, it.day, tzinfo=tz).timestamp() for it in (day, day + _DAY)
    )
    # Whole seconds are the pipeline's unit; fractions of one would move large projections.
    passed = min(max(floor(as_of.timestamp() - midnight), 0), int(next_midnight - midnight))
    return max(Fraction(day.day - 1) + Fraction(passed, int(next_midnight - midnight)), Fraction(1))


def _percent(part: int, whole: int | None) -> Decimal | None:
    """Two places, rounded half away from zero, as PostgreSQL does; None of nothing."""
    if not whole:
        return None
    size = Decimal(_half_up(Fraction(abs(part) * 10_000, whole))).scaleb(-2)
    return size if part >= 0 else -size


def _half_up(number: Fraction) -> int:
    return floor(number + Fraction(1, 2))
