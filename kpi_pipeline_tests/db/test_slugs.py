import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline.db.registry.clients import make_slug

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Harbor Analytics", "harbor-analytics"),
        ("Harbor Analytics ", "harbor-analytics"),
        ("  HARBOR   analytics", "harbor-analytics"),
        ("Café Zoë", "cafe-zoe"),
        ("Łódź Straße", "lodz-strasse"),
        ("Ærø & Sønner", "aero-and-sonner"),
        ("Joe's Diner", "joes-diner"),
        ("Joe’s Diner", "joes-diner"),
        ("AT&T", "at-and-t"),
        ("Quay|Pier/Sloop", "quay-pier-sloop"),
        ("under_score", "under-score"),
        ("24 Seven", "24-seven"),
        ("Of\N{LATIN SMALL LIGATURE FI}ce 5", "office-5"),
        ("--Harbor--", "harbor"),
        ("日本 Harbor", "harbor"),
        ("日本", "client"),
        ("🚀", "client"),
        ("", "client"),
        ("x" * 80, "x" * 63),
        ("x" * 62 + " y", "x" * 62),
    ],
)
def test_a_key_is_made_from_the_name(name: str, slug: str) -> None:
    assert make_slug(name, ()) == slug


@pytest.mark.parametrize(
    ("name", "taken", "slug"),
    [
        ("Acme", {"acme"}, "acme-2"),
        ("Acme", {"acme", "acme-2"}, "acme-3"),
        ("Acme", {"acme", "acme-3"}, "acme-2"),
        ("Acme", {"acme-2"}, "acme"),
        ("日本", {"client"}, "client-2"),
        ("x" * 63, {"x" * 63}, "x" * 61 + "-2"),
        ("x" * 63, {"x" * 63} | {"x" * 61 + f"-{n}" for n in range(2, 10)}, "x" * 60 + "-10"),
        ("x" * 60 + " yz", {"x" * 60 + "-yz"}, "x" * 60 + "-2"),
    ],
)
def test_a_taken_key_gets_the_next_number(name: str, taken: set[str], slug: str) -> None:
    assert make_slug(name, taken) == slug


@given(st.text(max_size=90), st.sets(st.integers(1, 12)))
def test_any_name_gives_a_free_key_of_the_right_form(name: str, numbers: set[int]) -> None:
    stem = make_slug(name, ())
    taken = {stem} | {make_slug(f"{stem} {number}", ()) for number in numbers}
    slug = make_slug(name, taken)
    assert SLUG.fullmatch(slug)
    assert slug not in taken


@given(st.lists(st.text("aA é'-1", max_size=4), max_size=12))
def test_keys_made_one_after_another_never_collide(names: list[str]) -> None:
    taken: set[str] = set()
    for name in names:
        slug = make_slug(name, taken)
        assert slug not in taken
        taken.add(slug)
    assert len(taken) == len(names)
