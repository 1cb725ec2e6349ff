"""The types of event, and the webhooks that subscribe to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeGuard

EVENT_NAMES: Mapping[str, str] = {
    "email_sent": "Email Sent",
    "manual_email_sent": "Manual Email Sent",
    "lead_first_contacted": "Contact First Emailed",
    "lead_replied": "Contact Replied",
    "lead_interested": "Contact Interested",
    "lead_unsubscribed": "Contact Unsubscribed",
    "untracked_reply_received": "Untracked Reply Received",
    "email_opened": "Email Opened",
    "email_bounced": "Email Bounced",
    "email_account_added": "Email Account Added",
    "email_account_removed": "Email Account Removed",
    "email_account_disconnected": "Email Account Disconnected",
    "email_account_reconnected": "Email Account Reconnected",
    "tag_attached": "Tag Attached",
    "tag_removed": "Tag Removed",
    "warmup_disabled_receiving_bounces": "Warmup Disabled Receiving Bounces",
    "warmup_disabled_causing_bounces": "Warmup Disabled Causing Bounces",
    "email_send_failed": "Email Send Failed",
    "manual_email_send_failed": "Manual Email Send Failed",
    "blacklisted_email_added": "Blacklisted Email Added",
    "blacklisted_email_removed": "Blacklisted Email Removed",
    "blacklisted_domain_added": "Blacklisted Domain Added",
    "blacklisted_domain_removed": "Blacklisted Domain Removed",
}
"""The id of each type of event, and the vendor's name of it."""


def are_types(value: object) -> TypeGuard[list[str]]:
    """Whether a value is a list of ids of types of event."""
    return isinstance(value, list) and all(
        isinstance(each, str) and each in EVENT_NAMES for each in value
    )


@dataclass
class WebhookUrl:
    """A workspace's webhook: an address, and the types of event that it subscribes to."""

    id: int
    workspace_id: int
    name: str
    url: str
    events: list[str]
    created_at: datetime
    updated_at: datetime


class WebhookUrls:
    """The webhooks of all workspaces, in order of creation, and the parent hooks.

    A parent hook is an address that gets the events of all workspaces, of the types it names.
    """

    def __init__(self) -> None:
        self._last_id = 0
        self._all: dict[int, WebhookUrl] = {}
        self._parents: dict[str, tuple[str, ...]] = {}

    def add(
        self, workspace_id: int, name: str, url: str, events: list[str], now: datetime
    ) -> WebhookUrl:
        """Register a webhook; ids are never reused."""
        self._last_id += 1
        hook = WebhookUrl(self._last_id, workspace_id, name, url, events, now, now)
        self._all[hook.id] = hook
        return hook

    def add_parent(self, url: str, events: tuple[str, ...]) -> None:
        """Add a parent hook, or replace the types of an address."""
        self._parents[url] = events

    def remove_parents(self) -> None:
        """Remove all parent hooks."""
        self._parents.clear()

    def of(self, workspace_id: int) -> list[WebhookUrl]:
        """The webhooks of one workspace."""
        return [hook for hook in self._all.values() if hook.workspace_id == workspace_id]

    def subscribed(self, workspace_id: int, event: str) -> list[str]:
        """The addresses that an event of a workspace goes to, each as often as it subscribes."""
        own = [hook.url for hook in self.of(workspace_id) if event in hook.events]
        return own + [url for url, events in self._parents.items() if event in events]

    def types_of(self, workspace_id: int) -> tuple[str, ...]:
        """The types of event of a workspace to which any address subscribes."""
        return tuple(each for each in EVENT_NAMES if self.subscribed(workspace_id, each))

    def get(self, hook_id: int) -> WebhookUrl | None:
        """The webhook with this id, in any workspace."""
        return self._all.get(hook_id)

    def remove(self, hook_id: int) -> None:
        """Remove a webhook."""
        del self._all[hook_id]
