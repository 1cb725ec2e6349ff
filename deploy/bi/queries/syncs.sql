-- The last hundred syncs: when they ended, how long they took, and what failed.
-- As a table.
SELECT
    ended_at,
    round(extract(epoch FROM duration)) AS seconds,
    first_date,
    last_date,
    n_ok AS clients,
    n_failed AS failed_clients,
    api_calls AS calls,
    error
FROM daily_kpi_sync_history
ORDER BY ended_at DESC
LIMIT 100;
