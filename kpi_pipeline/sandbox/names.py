from random import Random


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


# What names do in real accounts: two that look like one, an apostrophe, a space at the end, and
# letters beyond ASCII.
AWKWARD = (
    "Cedar Row Dental ",
    "O'Farrow & Daughters",
    "Brûlé Café Supply",
    "Blue Harbor",
    "Blue-Harbor",
)

_FIRST = words(
    "Amber Ashen Aspen Birch Bold Bramble Brass Bright Brook Calm Cinder Clear Clover Cobalt "
    "Copper Coral Crimson Crown Dapple Dawn Eagle Elder Ember Fair Falcon Fern Flint Frost Garnet "
    "Gentle Gilded Golden Granite Grey Hazel Heron Hollow Indigo Iron Ivory Jade Juniper Keen Lark "
    "Laurel Linden Lively Lunar Maple Marble Meadow Mellow Misty Mossy Noble Oaken Opal Otter "
    "Pebble Quiet"
)
_SECOND = words(
    "Anchor Arch Bay Beacon Bend Bridge Canyon Cliff Compass Cove Creek Crest Dale Delta Field "
    "Forge Gate Glen Grove Harvest Haven Hearth Hill Isle Lantern Ledge Mill Orchard Path Peak "
    "Pier Point Quarry Ridge River Sail Spring Summit Tide Vale"
)
_TRADE = words(
    "Accounting Advisory Analytics Capital Dental Fitness Freight Insurance Landscaping Law "
    "Logistics Marketing Payroll Realty Recruiting Robotics Roofing Security Software Solar"
)


def client_names(seed: int, count: int) -> list[str]:
    """So many distinct invented names, with the awkward ones among them as far as they fit."""
    chance = Random(f"{seed} names")  # noqa: S311 - a sandbox's names, not a secret
    combinations = range(len(_FIRST) * len(_SECOND) * len(_TRADE))
    awkward = list(AWKWARD[:count])
    names = awkward + [
        _name(number) for number in chance.sample(combinations, count - len(awkward))
    ]
    chance.shuffle(names)
    return names


def _name(number: int) -> str:
    number, trade = divmod(number, len(_TRADE))
    first, second = divmod(number, len(_SECOND))
    return f"{_FIRST[first]} {_SECOND[second]} {_TRADE[trade]}"
