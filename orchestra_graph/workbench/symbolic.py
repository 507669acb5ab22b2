"""SymPy, imported only when a task needs it, and a parser that never evaluates text as Python.

SymPy's own `sympify` calls `eval`; an answer is text from a model, so it is read through `ast` and a short list of
allowed nodes instead.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import cache
from typing import Any

from orchestra_graph.errors import MissingError

MAX_CHARACTERS = 300
"""Longest text that is parsed; longer ones could nest deeper than Python's stack."""
MAX_EXPONENT = 100
MAX_BITS = 10_000
"""Size of a power of a number."""

_FUNCTIONS = ("sin", "cos", "tan", "exp", "log", "sqrt")
_CONSTANTS = {"pi": "pi", "e": "E", "E": "E"}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@cache
def sympy() -> Any:
    """The module `sympy`.

    Raises:
        MissingError: The extra `demo` is not installed.
    """
    try:
        import sympy as module  # noqa: PLC0415  (optional extra)
    except ImportError as error:
        raise MissingError("the extra `demo`", "pip install 'orchestra-graph[demo]'") from error
    return module


def parse(text: str) -> Any:
    """Read an expression in letters, numbers, `+ - * / ** ^`, and the functions sin, cos, tan, exp, log, sqrt.

    Returns:
        A SymPy expression.

    Raises:
        ValueError: The text is no such expression.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"an expression of {len(text)} characters; expected at most {MAX_CHARACTERS}")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, MemoryError) as error:
        raise ValueError(f"{text!r} is no expression: {error}") from error
    return _convert(tree.body)


def _convert(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return sympy().Integer(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return getattr(sympy(), _CONSTANTS[name])
        case ast.Name(id=name) if len(name) == 1:
            return sympy().Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_convert(inner)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _power(_convert(left), _convert(right))
        case ast.BinOp(op=kind, left=left, right=right) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](_convert(left), _convert(right))
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in _FUNCTIONS:
            argument = _convert(inner)
            return _power(sympy().E, argument) if name == "exp" else getattr(sympy(), name)(argument)
    raise ValueError(f"{ast.unparse(node)!r} is not allowed in an expression")


def _power(base: Any, exponent: Any) -> Any:
    if exponent.is_number and not (exponent.is_finite and abs(exponent) <= MAX_EXPONENT):
        raise ValueError(f"exponent {exponent}; expected at most {MAX_EXPONENT} in size")
    if base.is_Rational and exponent.is_number:
        bits = max(abs(base.p), base.q).bit_length() * abs(exponent)
        if bits > MAX_BITS:
            raise ValueError(f"a power of about {int(bits)} bits; expected at most {MAX_BITS}")
    return base**exponent
