"""All state of one sandbox, and what changes it."""

from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request

from bison_sandbox.calls import Bottleneck, CallLog, Latency
from bison_sandbox.deliveries import Deliveries, WebhookUrls
from bison_sandbox.event_bodies import interested_event
from bison_sandbox.faults import ActiveFault, Fault, Faults, MoveUser
from bison_sandbox.options import SandboxError, SandboxOptions
from bison_sandbox.requests import InvalidError
from bison_sandbox.world.agency import Profile, build_agency
from bison_sandbox.world.clock import Clock, Days
from bison_sandbox.world.keys import AgencyUser, KeyRing
from bison_sandbox.world.live import Live
from bison_sandbox.world.numbers import Numbers
from bison_sandbox.world.replies import Marks, Replies
from bison_sandbox.world.workspaces import Workspace, Workspaces, campaigns_of


class Sandbox:
    """One local Email Bison; two with the same options start out equal.

    Raises SandboxError for a fault that names a workspace that does not exist.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.clock = Clock(ZoneInfo(options.timezone), options.today)
        agency = build_agency(
            options.seed, options.clients, self.clock.today(), options.first_workspace_id
        )
        self.seed = options.seed
        self.timezone = options.timezone
        self.variants = options.variants
        self.workspaces = Workspaces(agency)
        self.user = AgencyUser(agency[0].profile.workspace_id)
        self.numbers = Numbers(options.seed, self.days_of)
        self.marks = Marks(options.seed, self.days_of)
        self.replies = Replies(options.seed, self.numbers, self.marks, self.days_of)
        self.webhook_urls = WebhookUrls()
        # Addresses that get the events of all workspaces; a dict keeps each once, in order.
        self.parent_hooks: dict[str, None] = {}
        self.deliveries = Deliveries(options.seed, lambda: self.variants)
        # The address at which callers reached the sandbox, for events that no call caused.
        self.url: str | None = None
        self._live = (
            Live(
                options.seed,
                options.live_pace,
                self.clock,
                self.workspaces.present,
                self.mark_interested,
            )
            if options.live
            else None
        )
        self.bottleneck = Bottleneck(options.calls_per_second)
        self.latency = Latency(options.latency, options.seed)
        self.calls = CallLog()
        self.keys = KeyRing(options.seed)
        self._restlessness = Random(f"{options.seed} user")  # noqa: S311 - a random walk, not a secret
        now = self.clock.now()
        self.master_key = self.keys.issue(None, "super-admin", now)
        with_own_key = {client.profile.workspace_id for client in agency if client.has_own_key}
        for workspace in self.workspaces.present():
            if workspace.id in with_own_key:
                workspace.own_key = self.keys.issue(workspace.id, "api-user", now)
        self.faults = Faults()
        for fault in options.faults:
            try:
                self.add_fault(fault)
            except InvalidError as error:
                raise SandboxError(str(error)) from error

    def start(self) -> None:
        """Start the background work; must be called from within the event loop."""
        if self._live is not None:
            self._live.start()

    async def stop(self) -> None:
        """Stop marking leads and sending deliveries."""
        if self._live is not None:
            await self._live.stop()
        await self.deliveries.stop()

    def days_of(self, profile: Profile) -> Days:
        """The days of a workspace, by the zone that bounds them."""
        zone = self.variants.zone_of(profile.workspace_id)
        return self.clock.days if zone is None else Days(zone)

    def add_fault(self, fault: Fault) -> ActiveFault:
        """Put a fault in force. Raises InvalidError for a workspace that does not exist."""
        if isinstance(fault, MoveUser) and self.workspaces.get(fault.to) is None:
            raise InvalidError({"to": [f"The selected to is invalid: no workspace is {fault.to}."]})
        return self.faults.add(fault)

    def mark_interested(self, workspace: Workspace, *, deliver: bool = True) -> dict[str, Any]:
        """Mark one more lead of a workspace interested now; return the event's body.

        With `deliver`, it is sent to each of the workspace's webhooks that subscribe to it, and to
        the parent hooks. Must be called from within the event loop.
        """
        event = interested_event(
            self.seed,
            self.marks.add(workspace.id, self.clock.now()),
            workspace.name,
            campaigns_of(self.seed, workspace.id),
            self.days_of(workspace.profile).zone,
            self.url if self.variants.event_instance_url else None,
        )
        if deliver:
            own = self.webhook_urls.subscribed(workspace.id, "lead_interested")
            for url in [*own, *self.parent_hooks]:
                self.deliveries.send(url, event)
        return event

    def leave(self, workspace_id: int) -> None:
        """Move the user out of a deleted workspace, into the first existing one."""
        present = self.workspaces.present()
        if present:
            self.user.leave(workspace_id, instead=present[0].id)

    def maybe_move_user(self) -> None:
        """Move the user to another workspace, with the chance of the variant `restless_user`."""
        chance = self.variants.restless_user
        if not chance or self._restlessness.random() >= chance:
            return
        here = self.user.current_workspace_id
        others = [each.id for each in self.workspaces.present() if each.id != here]
        if others:
            self.user.switch(self._restlessness.choice(others))


def sandbox_of(request: Request) -> Sandbox:
    """The sandbox of a request."""
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox
