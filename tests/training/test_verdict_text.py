from __future__ import annotations

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.verdicts import exact, numeric
from orchestra_training.verdicts.text import last_number, normalise, says

from orchestra_graph.errors import ConfigError

SAME = [
    ("Paris", "paris."),
    ("The  Eiffel\nTower", '"Eiffel Tower"'),
    ("1,234,567.5", "1234567.5"),
    ("it\u2019s", "it's"),
    ("1990\u20131995", "1990-1995"),
    ("\u22125", "-5"),
    ("Straße", "STRASSE"),
    ("'a cat'", "cat"),
    ("e\u0301te\u0301", "\u00e9t\u00e9"),
    ("C", " c "),
]
DIFFERENT = [
    ("C", "C++"),
    ("C#", "C"),
    ("3.5", "35"),
    ("-5", "5"),
    ("5%", "5"),
    ("10\u00b2", "102"),
    (".5", "5"),
    ("1,2,3", "123"),
    ("1,2345", "12345"),
    ("5!", "5"),
    ("the", ""),
    ("Paris, Texas", "Paris"),
]


@pytest.mark.parametrize(("answer", "expected"), SAME)
def test_texts_that_say_the_same(answer: str, expected: str) -> None:
    assert exact(answer, expected).outcome == exact(expected, answer).outcome == 1


@pytest.mark.parametrize(("answer", "expected"), DIFFERENT)
def test_texts_that_say_something_else(answer: str, expected: str) -> None:
    assert normalise(answer) != normalise(expected)
    assert exact(expected, answer).outcome == 0


@given(st.text())
def test_what_is_left_is_trimmed_and_without_case(text: str) -> None:
    left = normalise(text)
    assert left == left.strip() == " ".join(left.split())
    assert not left.endswith((".", ",", ";", ":"))


@given(st.text(string.ascii_letters + string.digits, min_size=1))
def test_case_and_space_never_matter(word: str) -> None:
    assert exact(f"  {word.upper()} \n", word.lower()).outcome == 1


def test_one_of_several_is_enough() -> None:
    assert exact("NYC", ["New York", "nyc"]).outcome == 1
    assert exact("LA", ["New York", "nyc"]).outcome == 0
    assert exact(None, "x").outcome == exact("", "x").outcome == 0
    assert exact("x", "x").by == "exact"


@pytest.mark.parametrize("expected", ["", " . ", [], ["x", ""]])
def test_an_empty_reference_is_refused(expected: str | list[str]) -> None:
    with pytest.raises(ConfigError, match="expected a text with at least one letter"):
        exact("x", expected)


@pytest.mark.parametrize(
    ("text", "part", "said"),
    [
        ("Your refund of $42.50 is on its way.", "42.50", True),
        ("Your refund of $42.50 is on its way.", "42.5", False),
        ("It is 15.", "5", False),
        ("It is 5.", "5", True),
        ("It is 5.3", "5", False),
        ("It is 3.5", "5", False),
        ("It is -5", "5", False),
        ("-5", "5", False),
        ("It is -5", "-5", True),
        ("from 3-5 days", "5", True),
        ("In total 1,250 dollars", "1250", True),
        ("The total is $1000.00", "1000", True),
        ("Your refund is $1,050.00.", "$1050", True),
        ("Your refund is $1,050.05.", "1050", False),
        ("Release 1000.00.1", "1000", False),
        ("In total 10500", "1050", False),
        ("order o1.0", "o1", False),
        ("ORDER o1 was Cancelled", "order O1", True),
        ("order o12", "o1", False),
        ("uncancelled", "cancelled", False),
        ("you get 10% off", "10%", True),
        ("Your total is $1,234, paid today.", "1,234", True),
        ("It was 1,234,5 then", "1,234", False),
        ("", "x", False),
    ],
)
def test_required_information_is_said_as_whole_words(text: str, part: str, said: bool) -> None:
    assert says(text, part) == said


def test_empty_information_cannot_be_required() -> None:
    with pytest.raises(ConfigError, match="required information ' '"):
        says("x", " ")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("The total is 1,234.50 dollars.", 1234.5),
        ("-$5.25", -5.25),
        ("($5)", 5),
        ("\u22123", -3),
        ("x = -3", -3),
        ("7 - 3", 3),
        ("2020-01-05", 5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("5.", 5),
        ("50%", 50),
        ("1,2,3", 3),
        ("H2O", None),
        ("", None),
        ("1.2.3", 1.2),
        ("+4", 4),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_as_python_writes_it(number: float) -> None:
    assert last_number(f"it is {number!r}") == number
    assert numeric(repr(number), number).outcome == 1


@pytest.mark.parametrize(
    ("answer", "expected", "outcome"),
    [("3.1416", 3.14159265, 1), ("3.15", 3.14159265, 0), ("0", 0, 1), ("1e-8", 0, 0), (None, 1, 0), ("1e999", 1, 0)],
)
def test_numbers_within_the_tolerance(answer: str | None, expected: float, outcome: float) -> None:
    assert numeric(answer, expected).outcome == outcome


def test_a_number_that_is_off_is_told() -> None:
    verdict = numeric("about 7", 8)
    assert (verdict.by, verdict.model_extra) == ("numeric", {"reason": "7; expected 8"})


@pytest.mark.parametrize("wrong", [{"expected": math.nan}, {"expected": math.inf}, {"expected": 1, "relative": -1.0}])
def test_numbers_that_cannot_be_expected(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected a finite number and tolerances from 0 on"):
        numeric("1", **wrong)
