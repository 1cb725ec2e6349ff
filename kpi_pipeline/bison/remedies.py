"""What to do about each kind of trouble: sentences without their full stop."""

from kpi_pipeline.bison.model import KeyUse

_IN_THE_CSV = "in the CSV and import it (`kpi clients import`)"

MISSING_KEY = (
    f"Give the client an api_key {_IN_THE_CSV}, or give its instance a super-admin key in "
    "KPI_BISON_INSTANCES"
)
MISSING_MASTER_KEY = "Give the instance its super-admin key in KPI_BISON_INSTANCES"
WRONG_REGISTRY = f"Correct the client's bison_workspace_id or its api_key {_IN_THE_CSV}"
SWITCH_TOO_SLOW = f"Run it again later, or give the client an api_key of its own {_IN_THE_CSV}"
KEY_MOVED = (
    "Do not switch workspaces in Email Bison's own pages as the master key's user during a sync, "
    f"or give the client an api_key of its own {_IN_THE_CSV}"
)
GONE = (
    "See in Email Bison whether the workspace still exists: if not, set the client inactive "
    f"{_IN_THE_CSV}; if so, check the address of its instance in KPI_BISON_INSTANCES"
)
RATE_LIMITED = "Run it again later, or lower KPI_BISON_CALLS_PER_SECOND"
UNAVAILABLE = (
    "See whether Email Bison is up and its address in KPI_BISON_INSTANCES is right, then run it "
    "again"
)
MALFORMED = "No number was taken from it; run it again, and report it to Email Bison if it stays"
ADDRESS = (
    "Check the instance's address in KPI_BISON_INSTANCES: it answers, but not as Email Bison's API "
    "does"
)
REFUSED = "The request does not fit this instance; report it with this message"


def for_key(use: KeyUse) -> str:
    """The remedy for a rejected key."""
    if use is KeyUse.MASTER:
        return "Give the instance a valid super-admin key in KPI_BISON_INSTANCES"
    return f"Give the client a valid api_key of its workspace {_IN_THE_CSV}"
