from kpi_pipeline_tests.sync.variants.cases import IS_IT_UP, NOT_BELIEVED, Case, fault

_SHORT_PATIENCE = {"bison_timeout_seconds": 0.5}


def _answered(name: str, kind: str, *said: str, **options: object) -> Case:
    """An answer is an answer: it is asked for once."""
    return Case(name, (fault(kind, **options),), (*said, NOT_BELIEVED), struck=1)


def _no_answer(name: str, kind: str, seen: str, **options: object) -> Case:
    said = (f"got no answer at try 2 of 2: {seen}", IS_IT_UP)
    return Case(name, (fault(kind, **options),), said, struck=2, settings=_SHORT_PATIENCE)


CASES = (
    _answered(
        "a failure is told with 200",
        "success_false",
        "answered with a failure: Try later",
        value=False,
        message="Try later.",
    ),
    _answered(
        "a failure is told with 200, its false a text",
        "success_false",
        "answered with a failure: Something went wrong",
        value="false",
    ),
    _answered("the body is empty", "empty", "answered with an empty body"),
    _answered("200 comes with a page of HTML", "html", "something other than JSON"),
    _answered("the JSON is cut in half", "cut", "something other than JSON"),
    _no_answer("the answer comes too late", "slow", "time-out (0.5 s)", seconds=20),
    Case("the answer comes late, but in time", (fault("slow", seconds=0.3),), struck=1),
    _no_answer("the answer stops half-way", "stall", "time-out (0.5 s)"),
    _no_answer("the connection breaks half-way, again and again", "reset", "RemoteProtocolError"),
    Case("the connection breaks half-way once", (fault("reset", times=1),), struck=1),
)
