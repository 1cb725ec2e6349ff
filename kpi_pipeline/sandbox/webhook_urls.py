from dataclasses import dataclass
from datetime import datetime

EVENT_TYPES = (
    "email_sent",
    "manual_email_sent",
    "lead_first_contacted",
    "lead_replied",
    "lead_interested",
    "lead_unsubscribed",
    "untracked_reply_received",
    "email_opened",
    "email_bounced",
    "email_account_added",
    "email_account_removed",
    "email_account_disconnected",
    "email_account_reconnected",
    "tag_attached",
    "tag_removed",
    "warmup_disabled_receiving_bounces",
    "warmup_disabled_causing_bounces",
)


@dataclass
class WebhookUrl:
    """Where a workspace wants to hear of some types of event."""

    id: int
    workspace_id: int
    name: str
    url: str
    events: list[str]
    created_at: datetime
    updated_at: datetime


class WebhookUrls:
    """The webhooks of all workspaces, in the order in which they were made."""

    def __init__(self) -> None:
        self._last_id = 0
        self._all: dict[int, WebhookUrl] = {}

    def add(
        self, workspace_id: int, name: str, url: str, events: list[str], now: datetime
    ) -> WebhookUrl:
        """Register a webhook; an id is never used twice."""
        self._last_id += 1
        hook = WebhookUrl(self._last_id, workspace_id, name, url, events, now, now)
        self._all[hook.id] = hook
        return hook

    def of(self, workspace_id: int) -> list[WebhookUrl]:
        """The webhooks of one workspace."""
        return [hook for hook in self._all.values() if hook.workspace_id == workspace_id]

    def subscribed(self, workspace_id: int, event: str) -> list[str]:
        """The addresses that are to hear of a type of event in one workspace."""
        return [hook.url for hook in self.of(workspace_id) if event in hook.events]

    def get(self, hook_id: int) -> WebhookUrl | None:
        """The webhook with this id, in whatever workspace."""
        return self._all.get(hook_id)

    def remove(self, hook_id: int) -> None:
        """Forget a webhook."""
        del self._all[hook_id]
