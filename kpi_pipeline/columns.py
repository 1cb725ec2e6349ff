"""The names of the counted facts, and of the numbers that `metrics` works out from them."""

# What Bison counts on a day, and a number is made of.
FACT_COUNTS = ("sent", "replied", "interested", "bounced", "unsubscribed")

COUNTS = (
    "emails_sent_mtd",
    "positive_replies_mtd",
    "all_replies_mtd",
    "bounced_mtd",
    "unsubscribed_mtd",
    "emails_sent_today",
    "positive_replies_today",
    "emails_sent_last_7_days",
    "emails_sent_last_14_days",
    "emails_sent_last_30_days",
    "positive_replies_last_7_days",
    "positive_replies_last_14_days",
    "positive_replies_last_30_days",
    "positive_replies_last_month",
    "positive_replies_current_month",
    "projection_positive_replies_eom",
    "projection_emails_eom",
)
PERCENTAGES = (
    "mtd_leads_progress",
    "projection_replies_progress",
    "last_week_vs_week_before_progress",
)
METRIC_COLUMNS = (*COUNTS, *PERCENTAGES)
