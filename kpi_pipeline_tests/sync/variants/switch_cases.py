from kpi_pipeline_tests.sync.variants.cases import (
    GIVE_A_KEY,
    NOT_BELIEVED,
    Case,
    Switch,
    fault,
    revoked_key,
    variant,
)

_ONLY_SOME = "under some of the seven labels only"


def _right(name: str, switch: Switch) -> Case:
    return Case(name, (switch,))


def _in_zone(name: str, day_zone: str) -> Case:
    # Which zone it is, nobody has told the pipeline.
    settings = {"bison_timezone": None}
    return Case(name, (variant(day_zone=day_zone),), days_move=True, settings=settings)


CASES = (
    _right("every count is a text", variant(counts="text")),
    _right("every count is an integer", variant(counts="integers")),
    _right("a day without an event stands under no label", variant(empty_days="omitted")),
    Case(
        "each label leaves out its own days of zero",
        (variant(empty_days="omitted_by_label"),),
        said=("line-area-chart-stats answered with", _ONLY_SOME, NOT_BELIEVED),
        whose="all",
    ),
    _right("the labels come in another order", variant(labels="shuffled")),
    Case(
        "a label is missing",
        (variant(labels="one_missing"),),
        said=("answered without 'Interested'", NOT_BELIEVED),
        whose="all",
    ),
    _right("a label that nobody knows comes first", variant(labels="one_unknown")),
    _in_zone("days are bounded in UTC", "UTC"),
    _in_zone("days are bounded in US Eastern", "America/New_York"),
    _in_zone("days are bounded in each workspace's own zone", "workspace"),
    Case(
        "a revoked key is told of in the wrapping of other errors",
        (variant(wrapped_401=True), revoked_key),
        said=("answered 401 (Unauthenticated)", GIVE_A_KEY),
    ),
    Case(
        "a revoked key is told of without that wrapping",
        (variant(wrapped_401=False), revoked_key),
        said=("answered 401 (Unauthenticated)", GIVE_A_KEY),
    ),
    Case(
        "one 429 with Retry-After passes",
        (variant(retry_after=True), fault("status", status=429, times=1)),
        struck=1,
    ),
    _right("names hold raw control characters", variant(control_characters=True)),
    _right("every object holds fields that nobody knows", variant(extra_fields=True)),
)
