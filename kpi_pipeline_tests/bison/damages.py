"""The ways in which one value of a JSON body can be damaged, whatever the body is about."""

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Body = Any
Path = tuple[str | int, ...]

# Marks of what Python's JSON writer can't write: a name that stands twice in one object, and a
# control character that is not escaped.
AGAIN = "␆"
RAW_CONTROL = "␇"

JUNK: tuple[Body, ...] = (
    None,
    "",
    " ",
    "none",
    {},
    [],
    [None],
    [{}],
    True,
    False,
    1.5,
    -1,
    math.nan,
    math.inf,
    10**30,
    "9" * 40,
    "9" * 5000,
)

# Names that mean something to us or to Python, and nothing where they are added.
_STRAY_NAMES = (
    "mood",
    "replied",
    "sent",
    "success",
    "total",
    "team",
    "id",
    "data",
    "meta",
    "next_cursor",
    "unknown",
    "model_fields",
    "__class__",
    "",
)


@dataclass(frozen=True)
class Site:
    """A value within a body: `holder[key]`, found at `path`."""

    holder: Any
    key: Any
    path: Path

    @property
    def value(self) -> Body:
        return self.holder[self.key]

    def put(self, value: Body) -> None:
        self.holder[self.key] = copy.deepcopy(value)


class Choose(Protocol):
    """Takes one of the options: at random, or one after the other."""

    def __call__(self, options: Sequence[T], /) -> T:
        """One of the options, of which there is at least one."""
        ...


Damage = Callable[[Choose, Site], None]


def damages_of(site: Site, *, loses_entries: bool, in_place: bool) -> list[Damage]:
    """What can be done to the value.

    A list that does not lose entries is not replaced by an empty one; a value that stays `in_place`
    is not removed.
    """
    damages: list[Damage] = [_replace if loses_entries else _replace_uncounted, _wrap]
    within_object = isinstance(site.holder, dict) and bool(site.path)
    if not in_place and site.path:
        damages += [_remove]
    if within_object:
        damages += [_rename, _repeat_member]
    if isinstance(site.holder, list):
        damages += [_duplicate]
    if isinstance(site.value, dict):
        damages += [_add_member, _reorder_members, _retype_object]
        damages += [_hoist] if within_object else []
    if isinstance(site.value, list):
        damages += [_add_element, _reorder, _retype_list]
    if isinstance(site.value, (dict, list)) and site.value:
        damages += [_unwrap]
    if isinstance(site.value, str):
        damages += [_insert_control_character]
    if _is_number(site.value):
        damages += [_rewrite_number]
    return damages


def _is_number(value: Body) -> bool:
    if isinstance(value, str):
        # Python refuses to read the longest ones.
        return value.isdecimal() and len(value) < 1000
    return isinstance(value, int) and not isinstance(value, bool)


def _replace(choose: Choose, site: Site) -> None:
    site.put(choose(JUNK))


def _replace_uncounted(choose: Choose, site: Site) -> None:
    site.put(choose([junk for junk in JUNK if junk != []]))


def _wrap(choose: Choose, site: Site) -> None:
    value = site.value
    names = ["data", "value", "0", str(site.key)]
    site.put(choose([[value], *({name: value} for name in names)]))


def _unwrap(choose: Choose, site: Site) -> None:
    inner = site.value.values() if isinstance(site.value, dict) else site.value
    site.put(choose(list(inner)))


def _hoist(choose: Choose, site: Site) -> None:
    """The members move up beside those of the object around."""
    for name, value in site.holder.pop(site.key).items():
        site.holder.setdefault(name, value)


def _remove(choose: Choose, site: Site) -> None:
    del site.holder[site.key]


def _rename(choose: Choose, site: Site) -> None:
    name = site.key
    head, *tail = name.split("_")
    names = {
        name.upper(),
        name.capitalize(),
        head + "".join(map(str.capitalize, tail)),
        name.replace("_", "-"),
        f" {name}",
        f"{name} ",
        f"{name}\u00a0",
        f"{name}{RAW_CONTROL}",
    }
    site.holder[choose(sorted(names - {name}))] = site.holder.pop(name)


def _repeat_member(choose: Choose, site: Site) -> None:
    """The same name twice in one object, with another value after the true one or before it."""
    others: list[Body] = [8, "0", None, []]
    again = {f"{site.key}{AGAIN}": choose(others)}
    members = dict(site.holder)
    site.holder.clear()
    site.holder.update(choose([members | again, again | members]))


def _add_member(choose: Choose, site: Site) -> None:
    name = choose([name for name in _STRAY_NAMES if name not in site.value])
    site.value[name] = choose([8, None])


def _add_element(choose: Choose, site: Site) -> None:
    place = choose([0, len(site.value)])
    site.value.insert(place, copy.deepcopy(choose([None, 0, "", {}, []])))


def _duplicate(choose: Choose, site: Site) -> None:
    site.holder.insert(choose([0, len(site.holder)]), copy.deepcopy(site.value))


def _reorder(choose: Choose, site: Site) -> None:
    site.put(choose([site.value[::-1], [*site.value[1:], *site.value[:1]]]))


def _reorder_members(choose: Choose, site: Site) -> None:
    site.put(dict(reversed(site.value.items())))


def _retype_object(choose: Choose, site: Site) -> None:
    members = site.value
    pairs = [list(member) for member in members.items()]
    site.put(choose([pairs, list(members.values()), list(members), json.dumps(members)]))


def _retype_list(choose: Choose, site: Site) -> None:
    elements = site.value
    by_place = {str(place): element for place, element in enumerate(elements)}
    site.put(choose([by_place, json.dumps(elements), ", ".join(map(str, elements))]))


def _insert_control_character(choose: Choose, site: Site) -> None:
    place = choose([0, len(site.value) // 2, len(site.value)])
    site.put(site.value[:place] + RAW_CONTROL + site.value[place:])


def _rewrite_number(choose: Choose, site: Site) -> None:
    number = int(site.value)
    digits = str(number)
    site.put(
        choose(
            [
                number,
                digits,
                f"0{digits}",
                f" {digits}",
                f"{digits} ",
                f"{digits}\n",
                f"+{digits}",
                f"-{digits}",
                f"{digits}.0",
                f"{digits}.",
                f"{digits}e0",
                f"{digits}_0",
                f"{number:,}.00",
                f"0x{number:x}",
                digits.translate({ord("0") + n: ord("０") + n for n in range(10)}),
                digits.translate({ord("0") + n: ord("٠") + n for n in range(10)}),
                float(number),
                number + 0.5,
                number * 1e300,
                -number - 1,
                number + 10**30,
                [number],
                {"value": number},
            ]
        )
    )
