"""The stored rows beside what their inputs give, worked out a second time in SQL.

This shares no code with `domain/metrics.py`, so that an error in either shows as a difference. It
takes a grid of clients × days: window functions add up the counts and the days that are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from kpi_pipeline.domain.columns import FACT_COUNTS, METRIC_COLUMNS

# The columns that both tables have, and those of client_metrics alone.
_NUMBERS = (*METRIC_COLUMNS, "monthly_kpi_target", "monthly_sending_target", "as_of")
_PUBLISHED = (
    "workspace_name",
    "display_name",
    "emails_scheduled_today",
    "emails_scheduled_tomorrow",
)
_ALL = (*_NUMBERS, *_PUBLISHED)
# Rows of dates to come exist where a clock ran ahead, or the zone of the days changed.
_DAYS_AHEAD = 2


@dataclass(frozen=True)
class Cell:
    """A stored value that its inputs do not give, as text; None for NULL.

    `column` is None where the whole row is missing in `table`.
    """

    workspace: str
    day: date
    table: str
    column: str | None
    stored: str | None
    expected: str | None


@dataclass(frozen=True)
class Differences:
    """The first differing cells, by date, and how many cells, rows and clients differ in all.

    `clients`, `first` and `last` are those of all differing rows; `rows` counts the compared rows
    of client_metrics, differing or not.
    """

    cells: Sequence[Cell]
    differing_cells: int
    differing_rows: int
    clients: Sequence[str]
    first: date | None
    last: date | None
    rows: int


def _list(template: str, names: Sequence[str]) -> str:
    return ", ".join(template.format(name) for name in names)


def _count(condition: str, names: Sequence[str]) -> str:
    """The number of columns for which the condition is true."""
    return " + ".join(f"({condition.format(name)})::integer" for name in names)


def _window(count: str, days: int) -> str:
    """The sum of a count over the days up to each row's own; NULL if one of them is unknown."""
    whole = f"known_{days} + alone = {days}"
    return f"CASE WHEN {whole} THEN {count}_{days} + alone_{count} END"


def _month(count: str) -> str:
    whole = "known_month + alone = day_of_month"
    return f"CASE WHEN {whole} THEN {count}_month + alone_{count} END"


def _projection(sum_so_far: str) -> str:
    return f"round({sum_so_far}::numeric * seconds_in_month / elapsed)::bigint"


def _percent(part: str, whole: str) -> str:
    return f"CASE WHEN {whole} > 0 THEN round({part} * 100.0 / {whole}, 2) END"


# No count comes near the largest integer. Sums of integers take a fraction of the time that sums of
# bigint take.
_COUNTED = _list(
    "CASE WHEN f.as_of IS NULL THEN 0 ELSE least(f.{0} + coalesce(e.{0}, 0), 2147483647) END"
    "::integer AS {0}",
    FACT_COUNTS,
)
_COUNTED_ALONE = _list(
    "CASE WHEN f.as_of IS NULL THEN coalesce(e.{0}, 0) ELSE 0 END AS alone_{0}", FACT_COUNTS
)
_SUMMED = (*FACT_COUNTS, "known")
_WINDOW_SUMS = ", ".join(
    _list(f"sum({{0}}) OVER days_{n} AS {{0}}_{n}", ("sent", "interested", "known"))
    for n in (7, 14, 30)
)
_WINDOWS = ", ".join(
    f"{_window('sent', n)} AS emails_sent_last_{n}_days, "
    f"{_window('interested', n)} AS positive_replies_last_{n}_days"
    for n in (7, 14, 30)
)
_METRICS_DIFFER = "m.{0} IS DISTINCT FROM e.{0}"
_PROJECTIONS_DIFFER = (
    "p.{0} IS DISTINCT FROM e.{0} AND (m.workspace IS NULL OR p.{0} IS DISTINCT FROM m.{0})"
)
_EXPECTED = _list("e.{}", _ALL)
# The rows of both tables beside those of `expected`.
_STORED = """
    LEFT JOIN kpi_projections p ON p.workspace = e.workspace AND p.metric_date = e.day
    LEFT JOIN client_metrics m
        ON m.workspace = e.workspace AND m.metric_date = e.day AND m.metric_type = 'mtd'
"""

_DIFFERENCES = text(f"""
WITH active AS MATERIALIZED (
    -- Numbers are sorted and compared faster than names.
    SELECT row_number() OVER () AS client, workspace, name AS workspace_name,
        coalesce(display_name, name) AS display_name
    FROM clients WHERE active
), midnights AS (
    SELECT day, day::timestamp AT TIME ZONE CAST(:zone AS text) AS midnight
    FROM (
        SELECT CAST(:first AS date) + n AS day
        FROM generate_series(0, CAST(:last AS date) - CAST(:first AS date) + 1) n
    ) d
), starts AS (
    -- Where midnight comes twice, AT TIME ZONE gives the second; a day starts with the first.
    SELECT day, CASE
        WHEN ((midnight - interval '1 hour') AT TIME ZONE CAST(:zone AS text))::date = day
        THEN midnight - interval '1 hour' ELSE midnight
    END AS starts_at
    FROM midnights
), days AS MATERIALIZED (
    SELECT day, date_trunc('month', day::timestamp)::date AS month,
        extract(day FROM day)::int AS day_of_month,
        extract(day FROM date_trunc('month', day::timestamp) + interval '1 month - 1 day')::int
            AS days_in_month,
        starts_at,
        extract(epoch FROM lead(starts_at) OVER (ORDER BY day) - starts_at)::bigint AS seconds
    FROM starts
), facts AS (
    SELECT c.client, c.workspace, d.day, d.month, f.as_of, {_list("f.{}", FACT_COUNTS)}
    FROM active c
    CROSS JOIN days d
    LEFT JOIN raw_bison_stats f ON f.workspace = c.workspace AND f.date = d.day
    WHERE d.day <= :last
), events AS (
    SELECT f.client, f.day,
        {_list("count(*) FILTER (WHERE metric = '{0}') AS {0}", FACT_COUNTS)}
    FROM facts f
    CROSS JOIN LATERAL (
        SELECT metric FROM webhook_events
        WHERE workspace = f.workspace AND business_date = f.day AND status = 'applied'
          AND coalesce(happened_at, arrived_at) > coalesce(f.as_of, '-infinity')
        OFFSET 0
    ) e
    GROUP BY f.client, f.day
), counts AS (
    -- A day without facts is unknown, and counts in its own row alone.
    SELECT f.client, f.day, f.month, f.as_of,
        (f.as_of IS NOT NULL)::int AS known, (f.as_of IS NULL)::int AS alone,
        {_COUNTED},
        {_COUNTED_ALONE}
    FROM facts f
    LEFT JOIN events e ON e.client = f.client AND e.day = f.day
), sums AS MATERIALIZED (
    SELECT *,
        {_list("sum({0}) OVER month_to_date AS {0}_month", _SUMMED)},
        {_WINDOW_SUMS}
    FROM counts
    WINDOW month_to_date AS (PARTITION BY client, month ORDER BY day ROWS UNBOUNDED PRECEDING),
        days_7 AS (PARTITION BY client ORDER BY day ROWS 6 PRECEDING),
        days_14 AS (PARTITION BY client ORDER BY day ROWS 13 PRECEDING),
        days_30 AS (PARTITION BY client ORDER BY day ROWS 29 PRECEDING)
), months AS (
    SELECT client, month + interval '1 month' AS next_month, sum(interested) AS interested
    FROM counts
    GROUP BY client, month
    HAVING sum(known) = extract(day FROM month + interval '1 month - 1 day')
), targets AS (
    SELECT c.client, m.month, t.monthly_kpi_target, t.monthly_sending_target
    FROM active c
    CROSS JOIN (SELECT DISTINCT month FROM days) m
    CROSS JOIN LATERAL (
        SELECT monthly_kpi_target, monthly_sending_target FROM client_targets
        WHERE workspace = c.workspace AND holds_from <= m.month
        ORDER BY holds_from DESC
        LIMIT 1
    ) t
), numbers AS MATERIALIZED (
    SELECT s.client, s.day, d.days_in_month * d.seconds AS seconds_in_month,
        coalesce(s.as_of, d.starts_at) AS as_of,
        greatest(
            d.seconds,
            (d.day_of_month - 1) * d.seconds + least(d.seconds, greatest(0, floor(
                extract(epoch FROM coalesce(s.as_of, d.starts_at) - d.starts_at)
            )))::bigint
        ) AS elapsed,
        s.sent + alone_sent AS emails_sent_today,
        s.interested + alone_interested AS positive_replies_today,
        {_month("sent")} AS emails_sent_mtd,
        {_month("interested")} AS positive_replies_mtd,
        {_month("replied")} AS all_replies_mtd,
        {_month("bounced")} AS bounced_mtd,
        {_month("unsubscribed")} AS unsubscribed_mtd,
        {_WINDOWS},
        l.interested AS positive_replies_last_month,
        t.monthly_kpi_target, t.monthly_sending_target
    FROM sums s
    JOIN days d USING (day)
    LEFT JOIN months l ON l.client = s.client AND l.next_month = s.month
    LEFT JOIN targets t ON t.client = s.client AND t.month = s.month
    WHERE s.day >= :since
), projected AS MATERIALIZED (
    SELECT *, positive_replies_mtd AS positive_replies_current_month,
        positive_replies_last_14_days - positive_replies_last_7_days AS week_before,
        {_projection("positive_replies_mtd")} AS projection_positive_replies_eom,
        {_projection("emails_sent_mtd")} AS projection_emails_eom
    FROM numbers
), percentages AS MATERIALIZED (
    SELECT *,
        {_percent("positive_replies_mtd", "monthly_kpi_target")} AS mtd_leads_progress,
        {_percent("projection_positive_replies_eom", "monthly_kpi_target")}
            AS projection_replies_progress,
        {_percent("(positive_replies_last_7_days - week_before)", "week_before")}
            AS last_week_vs_week_before_progress,
        {_percent("emails_sent_mtd", "monthly_sending_target")} AS sending_progress,
        {_percent("projection_emails_eom", "monthly_sending_target")}
            AS projection_sending_progress,
        {_percent("all_replies_mtd", "emails_sent_mtd")} AS reply_rate_mtd,
        {_percent("positive_replies_mtd", "emails_sent_mtd")} AS positive_rate_mtd,
        {_percent("bounced_mtd", "emails_sent_mtd")} AS bounce_rate_mtd
    FROM projected
), expected AS NOT MATERIALIZED (
    SELECT c.workspace, n.day, {_list("n.{}", _NUMBERS)}, c.workspace_name, c.display_name,
        p.emails_scheduled_today, p.emails_scheduled_tomorrow
    FROM percentages n
    JOIN active c USING (client)
    LEFT JOIN sending_plans p ON p.workspace = c.workspace AND p.date = n.day
), differing AS MATERIALIZED (
    SELECT e.workspace, e.day,
        CASE WHEN m.workspace IS NULL THEN 0 ELSE {_count(_METRICS_DIFFER, _ALL)} END
        + CASE WHEN p.workspace IS NULL THEN 1 ELSE {_count(_PROJECTIONS_DIFFER, _NUMBERS)} END
            AS cells
    FROM expected e
    {_STORED}
    WHERE (m.workspace IS NOT NULL AND ({_list("m.{}", _ALL)}) IS DISTINCT FROM ({_EXPECTED}))
       OR (p.workspace IS NOT NULL AND ({_list("p.{}", _NUMBERS)}) IS DISTINCT FROM
            ({_list("e.{}", _NUMBERS)}))
       OR (m.workspace IS NOT NULL AND p.workspace IS NULL)
), first_rows AS MATERIALIZED (
    SELECT workspace, day FROM differing ORDER BY day, workspace LIMIT :limit
), rows AS MATERIALIZED (
    SELECT e.workspace, e.day, to_jsonb(e) - '{{workspace,day}}'::text[] AS expected,
        to_jsonb(p) AS projection, to_jsonb(m) AS metrics
    FROM first_rows
    JOIN expected e USING (workspace, day)
    {_STORED}
), cells AS (
    SELECT r.workspace, r.day, t.name, c.key,
        t.stored ->> c.key AS stored, c.value #>> '{{}}' AS expected
    FROM rows r
    CROSS JOIN LATERAL (
        -- A value that both tables have is shown once.
        VALUES ('client_metrics', r.metrics, '{{}}'), ('kpi_projections', r.projection, r.metrics)
    ) t(name, stored, shown)
    CROSS JOIN LATERAL jsonb_each(r.expected) c
    WHERE t.stored ? c.key AND t.stored -> c.key <> c.value
      AND (t.shown -> c.key) IS DISTINCT FROM (t.stored -> c.key)
    UNION ALL
    SELECT workspace, day, 'kpi_projections', NULL, NULL, NULL
    FROM rows WHERE projection IS NULL
)
SELECT t.*, s.*
FROM (
    SELECT coalesce(sum(cells), 0)::bigint AS differing_cells, count(*) AS differing_rows,
        coalesce(array_agg(DISTINCT workspace), '{{}}') AS clients,
        min(day) AS first, max(day) AS last,
        (
            SELECT count(*) FROM client_metrics m JOIN active USING (workspace)
            WHERE metric_date BETWEEN :since AND :last AND metric_type = 'mtd'
        ) AS rows
    FROM differing
) t
LEFT JOIN (SELECT * FROM cells ORDER BY day, workspace, name, key NULLS FIRST LIMIT :limit) s
    ON true
ORDER BY s.day, s.workspace, s.name, s.key NULLS FIRST
""")  # noqa: S608 - no part of it comes from outside

# Sorts of 1,000 clients fit in this memory. To compile the statement would take longer than to run
# it.
_SETTINGS = text("SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)")


def read_differences(
    connection: Connection, today: date, zone: ZoneInfo, *, days: int, limit: int
) -> Differences:
    """Compare the rows of all active clients of the last `days` days with their inputs.

    `zone` is that of the stored dates. At most `limit` cells are returned. It is one statement, so
    it sees all inputs and rows as of one moment.
    """
    since = today - timedelta(days=days - 1)
    # The longest windows are 30 days, and the month before.
    month_before = (since.replace(day=1) - timedelta(days=1)).replace(day=1)
    values = {
        "since": since,
        "first": min(month_before, since - timedelta(days=29)),
        "last": today + timedelta(days=_DAYS_AHEAD),
        "zone": zone.key,
        "limit": limit,
    }
    connection.execute(_SETTINGS)
    found = connection.execute(_DIFFERENCES, values).all()
    totals = found[0]
    return Differences(
        [
            Cell(row.workspace, row.day, row.name, row.key, row.stored, row.expected)
            for row in found
            if row.workspace is not None
        ],
        totals.differing_cells,
        totals.differing_rows,
        totals.clients,
        totals.first,
        totals.last,
        totals.rows,
    )
