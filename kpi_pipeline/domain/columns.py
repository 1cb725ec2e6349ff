"""Names of the counts in the facts; names and meanings of the numbers computed from them."""

# The daily counts of Bison from which the numbers are computed.
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
    "sending_progress",
    "projection_sending_progress",
    "reply_rate_mtd",
    "positive_rate_mtd",
    "bounce_rate_mtd",
)
METRIC_COLUMNS = (*COUNTS, *PERCENTAGES)

# What Dagster's page shows of each row, beside the client's name and `as_of`.
PARTITION_COLUMNS = (
    "emails_sent_today",
    "positive_replies_today",
    "emails_sent_mtd",
    "positive_replies_mtd",
    "projection_positive_replies_eom",
    "monthly_kpi_target",
    "mtd_leads_progress",
    "projection_replies_progress",
    "positive_replies_last_7_days",
    "positive_replies_last_14_days",
    "positive_replies_last_30_days",
)

_WINDOW = "{what} of the {days} days that end on the metric date"

# Column descriptions for Dagster's asset catalog; `metrics` holds the definitions.
MEANINGS = {
    "workspace": "the client's key: a slug that never changes",
    "workspace_name": "Email Bison's name of the client's workspace",
    "display_name": "the agency's label of the client, or else Email Bison's name",
    "instance": "the Email Bison instance",
    "bison_workspace_id": "Email Bison's id of the workspace",
    "active": "whether the client is synced",
    "seen_in_bison_at": "when Email Bison's list of workspaces last had it",
    "id": "the event's number in the inbox",
    "arrived_at": "when it arrived first",
    "happened_at": "when it happened, by the best time known",
    "idempotency_key": "what an event has in common with its repetitions",
    "status": "what became of it; see `kpi events list`",
    "tries": "how often applying it failed",
    "next_try_at": "when it is tried again",
    "last_delivered_at": "when it arrived last",
    "applied_at": "when the numbers began to include it",
    "date": "the day, as Email Bison counts days",
    "metric_date": "the date that the numbers end on and include",
    "metric_type": "always mtd",
    "sent": "emails sent on the day",
    "replied": "replies of any kind on the day",
    "interested": "leads that turned interested on the day: positive replies",
    "bounced": "bounces on the day",
    "unsubscribed": "unsubscribes on the day",
    "total_opens": "opens on the day, if the instance counts them",
    "unique_opens": "mails that were opened on the day, if the instance counts them",
    "emails_sent_mtd": "emails sent from the first of the month to the metric date",
    "positive_replies_mtd": "positive replies from the first of the month to the metric date",
    "all_replies_mtd": "replies of any kind from the first of the month to the metric date",
    "bounced_mtd": "bounces from the first of the month to the metric date",
    "unsubscribed_mtd": "unsubscribes from the first of the month to the metric date",
    "emails_sent_today": "emails sent on the metric date",
    "positive_replies_today": "positive replies on the metric date",
    **{
        f"{name}_last_{days}_days": _WINDOW.format(what=what, days=days)
        for name, what in (
            ("emails_sent", "emails sent"),
            ("positive_replies", "positive replies"),
        )
        for days in (7, 14, 30)
    },
    "positive_replies_last_month": "positive replies of the whole month before",
    "positive_replies_current_month": "the same as positive_replies_mtd",
    "projection_positive_replies_eom": "positive replies of the whole month at the pace so far",
    "projection_emails_eom": "emails of the whole month at the pace so far",
    "mtd_leads_progress": "positive_replies_mtd in percent of the month's target",
    "projection_replies_progress": "the projected positive replies in percent of the target",
    "last_week_vs_week_before_progress": "growth of positive replies in 7 days, in percent",
    "sending_progress": "emails_sent_mtd in percent of the month's sending target",
    "projection_sending_progress": "the projected emails in percent of the sending target",
    "reply_rate_mtd": "all_replies_mtd in percent of emails_sent_mtd",
    "positive_rate_mtd": "positive_replies_mtd in percent of emails_sent_mtd",
    "bounce_rate_mtd": "bounced_mtd in percent of emails_sent_mtd",
    "monthly_kpi_target": "the month's target, in positive replies",
    "monthly_sending_target": "the month's target, in emails",
    "emails_scheduled_today": "emails that Bison plans for the metric date, asked on that date",
    "emails_scheduled_tomorrow": "emails that Bison plans for the next day, asked the day before",
    "as_of": "when Bison was asked for the facts of the day",
    "source": "what computed the row last: sync, webhook, import, edit or recompute",
    "updated_at": "when the row was written last",
}
