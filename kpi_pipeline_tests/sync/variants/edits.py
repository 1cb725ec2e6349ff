"""Series that are not what they should be in one place alone."""

from kpi_pipeline_tests.sync.variants.cases import NOT_BELIEVED, Case, fault

# Lines in the vendor's order, "Sent" the third of them, and a point in the middle of the period.
_SENT = "/data/2"
_POINT = f"{_SENT}/dates/30"


def _edited(name: str, seen: str, pointer: str, **change: object) -> Case:
    said = (seen, NOT_BELIEVED)
    return Case(name, (fault("edit", pointer=pointer, **change),), said, struck=1)


def _no_count(what: str, value: object) -> Case:
    seen = "another shape (data.2.dates.30.1: it is no count)"
    return _edited(f"a count is {what}", seen, f"{_POINT}/1", value=value)


COUNTS = (
    _no_count("negative", -1),
    _no_count("negative, as a text", "-1"),
    _no_count("a fraction", 12.5),
    _no_count("a whole number with a point", 12.0),
    _no_count("null", None),
    _no_count("a word", "many"),
    _no_count("true", True),
)

SHAPES = (
    _edited(
        "a day lies before the period",
        "answered with 2026-01-31 under 'Replied', outside 2026-02-01 to 2026-03-18",
        "/data/0/dates/0/0",
        value="2026-01-31",
    ),
    _edited(
        "a day is written in another way",
        "(data.2.dates.30.0: it is no day of the form YYYY-MM-DD)",
        f"{_POINT}/0",
        value="03/03/2026",
    ),
    _edited("a day comes twice", "a day repeated under 'Sent'", _POINT, repeat=True),
    _edited(
        "one label leaves out a day",
        "answered with 2026-03-03 under some of the seven labels only",
        _POINT,
        remove=True,
    ),
    _edited("one label is not there", "answered without 'Sent'", _SENT, remove=True),
    _edited("one label comes twice", "answered with 'Sent' twice", _SENT, repeat=True),
    _edited("a line has no points", "(data.2.dates: ", f"{_SENT}/dates", remove=True),
    _edited("the data is null", "another shape (data: ", "/data", value=None),
    _edited("the data is an empty object", "another shape (data: ", "/data", value={}),
    _edited("the data is an empty list", "answered without 'Bounced', ", "/data", value=[]),
)
