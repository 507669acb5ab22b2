"""Verdicts on short texts and on numbers.

Left out: synonyms, units and other languages' number formats. Where an answer may be worded freely, ask a `Judge`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Verdict
from orchestra_training.verdicts.ruling import ruling

_PLAIN: Final = str.maketrans(
    dict.fromkeys("\u2018\u2019", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
)
"""Typographic quotes, dashes and the minus sign."""
_QUOTES: Final = ('"', "'", "`")
_ARTICLE: Final = re.compile(r"\A(?:the|an?) (?=.)")
_THOUSANDS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!,?\d)")
_WHOLE: Final = re.compile(r"[-$\u20ac\u00a3]*\d+")
_NUMBER: Final = re.compile(
    r"(?:(?<![\w.)])(?P<sign>[-+])[$\u20ac\u00a3]?)?"
    r"(?<![\w.])(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:e[-+]?\d+)?)",
    re.IGNORECASE,
)
"""A sign, perhaps a currency, and digits that are no part of a word or of another number."""


def normalise(text: str) -> str:
    """A short text as it is compared: without case, spacing, quotes around it, a final stop, a leading article.

    Commas between thousands go; all other signs stay, since `C`, `C++` and `C#` are three answers.

    >>> normalise(' "The  Eiffel Tower." ')
    'eiffel tower'
    >>> normalise("1,234.50")
    '1234.50'
    """
    plain = unicodedata.normalize("NFC", text).translate(_PLAIN).casefold()
    plain = " ".join(plain.split())
    while True:
        shorter = plain.rstrip(".,;:").strip()
        if len(shorter) > 1 and shorter[0] == shorter[-1] and shorter[0] in _QUOTES:
            shorter = shorter[1:-1].strip()
        if shorter == plain:
            break
        plain = shorter
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), _ARTICLE.sub("", plain))


def exact(answer: str | None, expected: str | Sequence[str]) -> Verdict:
    """Whether an answer is the expected text after normalisation.

    Args:
        answer: What the run answered.
        expected: The right answer, or several of which one is enough.

    Raises:
        ConfigError: Nothing is left of an expected text.

    >>> exact("the Eiffel tower", ["Tour Eiffel", "Eiffel Tower"]).outcome
    1.0
    """
    wanted = [expected] if isinstance(expected, str) else list(expected)
    forms = [normalise(text) for text in wanted]
    if not forms or not all(forms):
        raise ConfigError(f"expected = {expected!r}: expected a text with at least one letter, digit or sign")
    return ruling(normalise(answer or "") in forms, "exact")


def says(text: str, part: str) -> bool:
    """Whether a text holds another one as whole words and numbers, both normalised.

    >>> says("Your refund is $1,050.00.", "1050.00"), says("It costs 15 dollars", "5")
    (True, False)
    """
    wanted = normalise(part)
    if not wanted:
        raise ConfigError(f"required information {part!r}: expected a text with at least one letter, digit or sign")
    before = r"(?<!\w)(?<!\d[.,])" if wanted[0].isalnum() else ""
    sign = r"(?<!\s-)(?<!^-)" if wanted[0].isdigit() else ""
    after = r"(?!\w)(?![.,]\d)" if wanted[-1].isalnum() else ""
    # Amounts are often said with cents where there are none.
    zeros = r"(?:\.0+)?" if _WHOLE.fullmatch(wanted) else ""
    return re.search(before + sign + re.escape(wanted) + zeros + after, normalise(text)) is not None


def last_number(text: str) -> float | None:
    """The last number in a text, or None; units, the percent sign among them, are not read.

    >>> last_number("between 3 and 1,234.5 dollars"), last_number("-2e3"), last_number("none")
    (1234.5, -2000.0, None)
    """
    plain = unicodedata.normalize("NFC", text).translate(_PLAIN)
    found = [(match["sign"] or "") + match["digits"] for match in _NUMBER.finditer(plain)]
    return float(found[-1].replace(",", "")) if found else None


def numeric(answer: str | None, expected: float, *, relative: float = 1e-4, absolute: float = 1e-9) -> Verdict:
    """Whether the last number of an answer is the expected one.

    Args:
        answer: What the run answered.
        expected: In the unit that the question asks for.
        relative: How far it may be off, as a share of the expected one.
        absolute: How far it may be off in any case.

    Raises:
        ConfigError: The expected number is not finite, or a tolerance is negative.

    >>> numeric("about 3.1416 rad", 3.14159, relative=1e-4).outcome
    1.0
    """
    if not math.isfinite(expected) or not relative >= 0 or not absolute >= 0:
        raise ConfigError(
            f"numeric(expected={expected!r}, relative={relative!r}, absolute={absolute!r}): "
            "expected a finite number and tolerances from 0 on"
        )
    number = last_number(answer or "")
    if number is None:
        return ruling(False, "numeric", "the answer holds no number")
    is_near = abs(number - expected) <= max(absolute, relative * abs(expected))
    return ruling(is_near, "numeric", "" if is_near else f"{number:g}; expected {expected:g}")
