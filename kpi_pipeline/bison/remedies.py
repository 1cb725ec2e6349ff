"""What to do about each kind of trouble: sentences without their full stop."""

from kpi_pipeline.bison.model import KeyUse

_IN_THE_CSV = "in the CSV and import it (`kpi clients import`)"

MISSING_KEY = f"Give the client an api_key {_IN_THE_CSV}, or set KPI_BISON_MASTER_KEY"
MISSING_MASTER_KEY = "Set KPI_BISON_MASTER_KEY to a super-admin key of the instance"
WRONG_REGISTRY = f"Correct the client's bison_workspace_id or its api_key {_IN_THE_CSV}"
SWITCH_TOO_SLOW = f"Run it again later, or give the client an api_key of its own {_IN_THE_CSV}"
KEY_MOVED = (
    "Do not switch workspaces in Email Bison's own pages as the master key's user during a sync, "
    f"or give the client an api_key of its own {_IN_THE_CSV}"
)
GONE = (
    "See in Email Bison whether the workspace still exists: if not, set the client inactive "
    f"{_IN_THE_CSV}; if so, check KPI_BISON_URL"
)
RATE_LIMITED = "Run it again later, or lower KPI_BISON_CALLS_PER_SECOND"
UNAVAILABLE = "See whether Email Bison is up and KPI_BISON_URL is right, then run it again"
MALFORMED = "No number was taken from it; run it again, and report it to Email Bison if it stays"
ADDRESS = "Check KPI_BISON_URL: the address answers, but not as Email Bison's API does"
REFUSED = "The request does not fit this instance; report it with this message"


def for_key(use: KeyUse) -> str:
    """The remedy for a rejected key."""
    if use is KeyUse.MASTER:
        return "Set KPI_BISON_MASTER_KEY to a valid super-admin key of the instance"
    return f"Give the client a valid api_key of its workspace {_IN_THE_CSV}"
