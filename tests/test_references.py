"""References: found, renamed and filled in; what is filled in is never looked at again."""

from typing import Any

import pytest

from master_agent.references import Malformed, Reference, fill, fill_text, find, rename


def found(value: Any) -> list[str]:
    return [str(item) if isinstance(item, Reference) else f"not {item.text}" for item in find(value)]


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("", []),
        ("no reference, $5 and {braces} and $name", []),
        ("${hero.text}", ["${hero.text}"]),
        ("a ${hero.path} b ${page.data.size.0}.", ["${hero.path}", "${page.data.size.0}"]),
        ("${ hero.text }", ["${hero.text}"]),
        ("${Hero-1.text}", ["${Hero-1.text}"]),
        ("${params.my-key}", ["${params.my-key}"]),
        ("$${hero.text}", []),
        ("$$${hero.text}", []),
        ("$${a} ${b.text}", ["${b.text}"]),
        ("${}", ["not ${}"]),
        ("${name}", ["not ${name}"]),
        ("${a.}", ["not ${a.}"]),
        ("${.a}", ["not ${.a}"]),
        ("${a b.text}", ["not ${a b.text}"]),
        ("${a.text", []),
        ("${x ? `${y.text}` : z}", ["${y.text}"]),
        (["${a.text}", {"k": ["${b.text}"], "${no.key}": 1}, 7, None], ["${a.text}", "${b.text}"]),
    ],
)
def test_references_are_found_wherever_a_text_stands(text: Any, references: list[str]) -> None:
    assert found(text) == references


def test_what_a_reference_is_made_of() -> None:
    assert list(find("${a.data.b.c} ${no}")) == [Reference("a", ("data", "b", "c")), Malformed("${no}")]


def test_what_is_filled_in_is_not_scanned_again() -> None:
    assert fill_text("${a.text} ${b.text}", lambda r: "${b.text} $${" if r.source == "a" else "B") == "${b.text} $${ B"


def test_two_dollars_become_one_and_malformed_ones_stay() -> None:
    assert fill_text("$${a.text} ${no} ${a.text}", lambda _: "A") == "${a.text} ${no} A"


def test_a_text_that_is_one_reference_becomes_the_value_itself_and_a_longer_one_shows_it() -> None:
    values: dict[str, Any] = {"n": 7, "list": [1], "no": False}

    def filled(value: Any) -> Any:
        return fill(value, lambda r: values[r.path[-1]], lambda shown: f"<{shown}>")

    assert filled("${a.data.n}") == 7
    assert filled("${a.data.no}") is False
    assert filled(" ${a.data.n}") == " <7>"
    assert filled({"x": ["${a.data.list}", "${a.data.n}!"], "y": 3, "z": None}) == {
        "x": [[1], "<7>!"],
        "y": 3,
        "z": None,
    }
    assert filled("$${") == "${"
    assert filled("${bad}") == "${bad}"


def test_renaming_touches_sources_only() -> None:
    value: dict[str, Any] = {"a": ["${A-b.data.A-b} $${A-b.text} ${bad} A-b"], "A-b": 1}
    renamed = {"a": ["${a_b.data.A-b} $${A-b.text} ${bad} A-b"], "A-b": 1}
    assert rename(value, lambda name: name.lower().replace("-", "_")) == renamed
