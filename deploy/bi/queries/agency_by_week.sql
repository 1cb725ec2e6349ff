-- The whole agency by week (from Monday), from the facts of each day. The week that is under way is short.
-- As lines of the three rates, or bars of emails_sent.
SELECT
    date_trunc('week', f.date)::date AS week,
    sum(f.sent) AS emails_sent,
    sum(f.interested) AS positive_replies,
    round(100.0 * sum(f.replied) / nullif(sum(f.sent), 0), 2) AS reply_rate,
    round(100.0 * sum(f.interested) / nullif(sum(f.sent), 0), 2) AS positive_rate,
    round(100.0 * sum(f.bounced) / nullif(sum(f.sent), 0), 2) AS bounce_rate
FROM raw_bison_stats f
GROUP BY week
ORDER BY week;
