-- Each active client's month so far against its target, those behind first.
-- As a table, or as bars of percent_of_target.
SELECT
    coalesce(c.display_name, c.name) AS client,
    m.metric_date AS day,
    m.positive_replies_mtd AS positive_replies,
    m.projection_positive_replies_eom AS projection,
    m.monthly_kpi_target AS target,
    m.mtd_leads_progress AS percent_of_target,
    CASE
        WHEN m.positive_replies_mtd IS NULL OR m.projection_positive_replies_eom IS NULL THEN 'no data'
        WHEN m.monthly_kpi_target IS NULL THEN 'no target'
        WHEN m.positive_replies_mtd >= m.monthly_kpi_target THEN 'above target'
        WHEN m.projection_positive_replies_eom >= m.monthly_kpi_target THEN 'on track'
        ELSE 'behind'
    END AS standing
FROM clients c
LEFT JOIN client_metrics m
    ON m.workspace = c.workspace AND m.metric_type = 'mtd'
    AND m.metric_date = (SELECT (now() AT TIME ZONE zone)::date FROM day_zone)
WHERE c.active
ORDER BY m.projection_positive_replies_eom::numeric / nullif(m.monthly_kpi_target, 0), client;
