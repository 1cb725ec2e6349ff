"""What pydantic finds wrong with values that somebody gave, in the vendor's words."""

from collections.abc import Iterable

from pydantic import ValidationError

from kpi_pipeline.sandbox.errors import InvalidError

VERBATIM = "verbatim"
"""The type of a custom error whose message is a whole sentence already."""

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def refused(error: ValidationError, known: Iterable[str]) -> InvalidError:
    """A 422 that names each field at fault; `known` are the names that there are."""
    errors: dict[str, list[str]] = {}
    for each in error.errors(include_url=False, include_input=False):
        field = str(each["loc"][0]) if each["loc"] else "body"
        expected = each.get("ctx", {}).get("expected")
        if each["type"] == VERBATIM:
            sentence = each["msg"]
        elif each["type"] in _UNKNOWN:
            sentence = f"The {field} field is unknown. Known are {', '.join(sorted(known))}."
        elif each["type"] == "missing":
            sentence = f"The {field} field is required."
        elif each["type"] == "literal_error":
            sentence = f"The selected {field} is invalid. Allowed are {expected}."
        else:
            sentence = f"The {field} field is invalid: {each['msg'][:1].lower()}{each['msg'][1:]}."
        errors.setdefault(field, []).append(sentence)
    return InvalidError(errors)
