from kpi_pipeline_tests.sync.variants.cases import (
    GIVE_A_KEY,
    IS_IT_UP,
    SET_INACTIVE,
    Case,
    fault,
    fault_of_all,
)

_REPORT_IT = "The request does not fit this instance; report it"
_RUN_LATER = "Run it again later, or lower KPI_BISON_CALLS_PER_SECOND"


def _final(status: int, *said: str, **options: object) -> Case:
    """A status that no other try would change."""
    name = f"the series is answered with {status}"
    seen = f"line-area-chart-stats answered {status}"
    return Case(name, (fault("status", status=status, **options),), (seen, *said), struck=1)


def _passing(status: int, in_what: str, *said: str, **options: object) -> Case:
    """A status that may pass, and does not."""
    name = f"the series is answered with {status} in {in_what}, again and again"
    seen = f"answered {status}"
    switch = fault("status", status=status, **options)
    return Case(name, (switch,), (seen, "at try 2 of 2", *said), struck=2)


CASES = (
    _final(
        400,
        "(No emails scheduled for this period)",
        _REPORT_IT,
        message="No emails scheduled for this period",
    ),
    _final(401, "(Unauthenticated)", GIVE_A_KEY),
    _final(403, "(This action is unauthorized.", GIVE_A_KEY),
    _final(404, "(record_not_found)", SET_INACTIVE),
    _final(422, "The given data was invalid.", _REPORT_IT),
    _passing(408, "JSON", "(Request Timeout)", IS_IT_UP),
    _passing(500, "JSON", "(Server Error)", IS_IT_UP),
    _passing(502, "a page of HTML", IS_IT_UP, html=True),
    _passing(503, "a page of HTML", IS_IT_UP, html=True),
    _passing(503, "JSON", "(Service Unavailable)", IS_IT_UP),
    Case(
        "the series is answered with 503 once",
        (fault("status", status=503, html=True, times=1),),
        struck=1,
    ),
    _passing(429, "JSON", "(Too Many Attempts)", _RUN_LATER, retry_after=1),
    Case(
        "the whole instance asks once to wait",
        (fault_of_all("status", status=429, retry_after=1, times=1),),
        struck=1,
    ),
    Case(
        "the whole instance answers 502",
        (fault_of_all("status", status=502, html=True),),
        ("answered 502 at try 2 of 2", IS_IT_UP),
        whose="all",
        struck=6,
    ),
)
