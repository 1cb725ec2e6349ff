"""Where a check was to ask Email Bison and got no answer: an outage, and no finding of its own."""

from collections.abc import Mapping, Sequence

UNANSWERED = "unanswered"
# As the check `registry_matches_bison` names it where a key's owner could not be asked for.
_UNCHECKED_KEYS = "unchecked keys"


def lacks_answers(offenders: Sequence[Mapping[str, object]]) -> bool:
    """Whether something is to be asked again."""
    return any(map(_is_unanswered, offenders))


def lacks_only_answers(offenders: Sequence[Mapping[str, object]]) -> bool:
    """Whether all that is wrong is that Email Bison did not answer."""
    return bool(offenders) and all(map(_is_unanswered, offenders))


def _is_unanswered(row: Mapping[str, object]) -> bool:
    return bool({UNANSWERED, _UNCHECKED_KEYS} & {row.get("kind"), row.get("count")})
