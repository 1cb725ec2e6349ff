-- Positive replies and emails of each day of the last 90, a line for each client.
-- As lines over day, with client as the series.
SELECT
    m.metric_date AS day,
    coalesce(c.display_name, c.name) AS client,
    m.positive_replies_today AS positive_replies,
    m.emails_sent_today AS emails_sent
FROM client_metrics m
JOIN clients c ON c.workspace = m.workspace AND c.active
WHERE m.metric_type = 'mtd'
    AND m.metric_date > (SELECT (now() AT TIME ZONE zone)::date FROM day_zone) - 90
ORDER BY day, client;
