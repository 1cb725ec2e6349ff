-- How old each active client's latest numbers are, the oldest first: is what the other queries show current?
-- As a table.
SELECT
    coalesce(c.display_name, c.name) AS client,
    max(m.as_of) AS data_from,
    round(extract(epoch FROM now() - max(m.as_of)) / 60) AS minutes_old
FROM clients c
LEFT JOIN client_metrics m ON m.workspace = c.workspace AND m.metric_type = 'mtd'
WHERE c.active
GROUP BY c.workspace, c.display_name, c.name
ORDER BY minutes_old DESC NULLS FIRST, client;
