"""The parser of expressions: SymPy's values, and nothing evaluated as Python."""

from __future__ import annotations

import sys

import pytest
import sympy

from orchestra_graph.errors import MissingError
from orchestra_graph.workbench import symbolic
from orchestra_graph.workbench.symbolic import MAX_CHARACTERS, parse

x = sympy.Symbol("x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3*x^2 - 1/2", 3 * x**2 - sympy.Rational(1, 2)),
        (" -exp(2)/4 + e ", -sympy.exp(2) / 4 + sympy.E),
        ("sqrt(8) + sin(pi)", 2 * sympy.sqrt(2)),
        ("2**100 / 2**98", sympy.Integer(4)),
        ("log(x*2)", sympy.log(2 * x)),
    ],
)
def test_expressions_are_read(text: str, value: sympy.Expr) -> None:
    assert sympy.simplify(parse(text) - value) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.5",
        "two",
        "f(x)",
        "x.diff",
        "exit()",
        "sin(x, 1)",
        "[1]",
        "1 if x else 2",
        "True",
        "2**101",
        "exp(101)",
        "((9**99)**99)",
        "2**(1/0)",
        "1" * (MAX_CHARACTERS + 1),
        "(" * 200 + "1" + ")" * 200,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expression|exponent|bits|allowed"):
        parse(text)


def test_a_missing_sympy_is_told_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)
    symbolic.sympy.cache_clear()
    with pytest.raises(MissingError, match=r"pip install 'orchestra-graph\[demo\]'"):
        parse("1 + 1")
    monkeypatch.undo()
    assert parse("1 + 1") == 2
