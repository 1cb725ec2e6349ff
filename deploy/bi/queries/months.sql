-- What each month brought each client: its last row of the month. Rates of a month are of its emails.
-- As a pivot of months by client, or as stacked bars.
SELECT DISTINCT ON (m.workspace, date_trunc('month', m.metric_date))
    date_trunc('month', m.metric_date)::date AS month,
    coalesce(c.display_name, c.name) AS client,
    m.emails_sent_mtd AS emails_sent,
    m.positive_replies_mtd AS positive_replies,
    m.monthly_kpi_target AS target,
    m.mtd_leads_progress AS percent_of_target,
    m.reply_rate_mtd AS reply_rate,
    m.positive_rate_mtd AS positive_rate,
    m.bounce_rate_mtd AS bounce_rate,
    m.metric_date AS counted_to
FROM client_metrics m
JOIN clients c ON c.workspace = m.workspace
WHERE m.metric_type = 'mtd'
ORDER BY m.workspace, date_trunc('month', m.metric_date), m.metric_date DESC;
