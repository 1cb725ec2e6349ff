from random import Random
from zoneinfo import ZoneInfo

from starlette.requests import Request

from kpi_pipeline.sandbox.calls import CallLog
from kpi_pipeline.sandbox.clock import Clock, Days
from kpi_pipeline.sandbox.correspondence import Correspondence
from kpi_pipeline.sandbox.errors import InvalidError
from kpi_pipeline.sandbox.estate import Profile, build_estate
from kpi_pipeline.sandbox.fault_kinds import Fault, MoveUser
from kpi_pipeline.sandbox.faults import Faults, Standing
from kpi_pipeline.sandbox.keys import KeyRing
from kpi_pipeline.sandbox.limits import Bottleneck, Latency
from kpi_pipeline.sandbox.numbers import Numbers
from kpi_pipeline.sandbox.options import SandboxError, SandboxOptions
from kpi_pipeline.sandbox.user import AgencyUser
from kpi_pipeline.sandbox.webhook_urls import WebhookUrls
from kpi_pipeline.sandbox.workspaces import Workspaces


class Sandbox:
    """Everything that one sandbox knows; two with the same options start out equal.

    Raises SandboxError for a fault that this estate has no workspace for.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.clock = Clock(ZoneInfo(options.timezone), options.today)
        estate = build_estate(
            options.seed, options.clients, self.clock.today(), options.first_workspace_id
        )
        self.seed = options.seed
        self.timezone = options.timezone
        self.manners = options.manners
        self.workspaces = Workspaces(estate)
        self.user = AgencyUser(estate[0].profile.workspace_id)
        self.numbers = Numbers(options.seed, self.days_of)
        self.correspondence = Correspondence(options.seed, self.numbers, self.days_of)
        self.webhook_urls = WebhookUrls()
        self.bottleneck = Bottleneck(options.calls_per_second)
        self.latency = Latency(options.latency, options.seed)
        self.calls = CallLog()
        self.keys = KeyRing(options.seed)
        self._restlessness = Random(f"{options.seed} user")  # noqa: S311 - a whim, not a secret
        now = self.clock.now()
        self.master_key = self.keys.issue(None, "super-admin", now)
        with_own_key = {client.profile.workspace_id for client in estate if client.has_own_key}
        for workspace in self.workspaces.present():
            if workspace.id in with_own_key:
                workspace.own_key = self.keys.issue(workspace.id, "api-user", now)
        self.faults = Faults()
        for fault in options.faults:
            try:
                self.add_fault(fault)
            except InvalidError as error:
                raise SandboxError(str(error)) from error

    def days_of(self, profile: Profile) -> Days:
        """What bounds a workspace's days."""
        zone = self.manners.zone_of(profile.workspace_id)
        return self.clock.days if zone is None else Days(zone)

    def add_fault(self, fault: Fault) -> Standing:
        """Put a fault in force. Raises InvalidError if it names a workspace that is not there."""
        if isinstance(fault, MoveUser) and self.workspaces.get(fault.to) is None:
            raise InvalidError({"to": [f"The selected to is invalid: no workspace is {fault.to}."]})
        return self.faults.add(fault)

    def leave(self, workspace_id: int) -> None:
        """Take the user out of a workspace that is gone, into the first one that is left."""
        present = self.workspaces.present()
        if present:
            self.user.leave(workspace_id, instead=present[0].id)

    def let_the_user_roam(self) -> None:
        """By the chance of a restless user, move to another workspace."""
        chance = self.manners.restless_user
        if not chance or self._restlessness.random() >= chance:
            return
        here = self.user.current_workspace_id
        others = [each.id for each in self.workspaces.present() if each.id != here]
        if others:
            self.user.switch(self._restlessness.choice(others))


def sandbox_of(request: Request) -> Sandbox:
    """The sandbox that a request came to."""
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox
