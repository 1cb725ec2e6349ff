"""The types of event that Email Bison sends, and what each says of the numbers.

Types, members and keys are those of the vendor's document and of what was observed live: bodies
carry no id of the event, so it is known by the things it tells of.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """How the events of one type count.

    `metric` is the daily count that an event raises by one, a name of `columns.FACT_COUNTS`.
    `keys` are the members of `data` that tell two events apart: the first group of which all are
    there. `happened_at` is the member that says when it happened, where one does; a
    `campaign_event` of the very same type says so for any type.
    """

    metric: str
    keys: tuple[tuple[str, ...], ...]
    happened_at: str | None = None


COUNTED = {
    "email_sent": Kind("sent", (("scheduled_email.id",),), "scheduled_email.sent_at"),
    "lead_replied": Kind("replied", (("reply.id",),), "reply.date_received"),
    # A lead counts once in a campaign. `reply.date_received` is when the mail came, hours before
    # anybody marked it, so it does not say when the lead turned interested.
    "lead_interested": Kind("interested", (("lead.id", "campaign.id"), ("reply.id",))),
    "email_bounced": Kind(
        "bounced", (("scheduled_email.id",), ("reply.id",)), "reply.date_received"
    ),
    "lead_unsubscribed": Kind("unsubscribed", (("campaign_event.id",), ("scheduled_email.id",))),
}

# Documented, and of no meaning for the numbers: stored, not counted.
NOT_COUNTED = frozenset(
    {
        "manual_email_sent",
        "lead_first_contacted",
        "email_opened",
        "untracked_reply_received",
        "email_account_added",
        "email_account_removed",
        "email_account_disconnected",
        "email_account_reconnected",
        "tag_attached",
        "tag_removed",
        "warmup_disabled_receiving_bounces",
        "warmup_disabled_causing_bounces",
    }
)
