"""The parts from which train descriptions of the experts are put together; `descriptions` has the layouts.

Every part says what `SKILLS` says of its expert: a skill only what lies within the limits, a limit only what does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

Wordings = tuple[str, ...]
"""Ways to say one thing; each stands alone as a noun."""


@dataclass(frozen=True)
class Parts:
    """What can be said of one expert, thing by thing."""

    skills: tuple[Wordings, ...]
    """What it does."""
    limits: tuple[Wordings, ...]
    """What it declines, or does wrong."""
    notes: Wordings
    """Whole sentences on how it works."""


def _sized(terms: str, sizes: str) -> Wordings:
    """Every term, bare and with every size; both are lists with `|` between."""
    return tuple(f"{term} {size}".strip() for term, size in product(terms.split("|"), ("", *sizes.split("|"))))


def _ways(terms: str) -> Wordings:
    return tuple(terms.split("|"))


_SUMS = (
    "arithmetic|sums and products|addition, subtraction and multiplication|whole-number calculation|number crunching"
)
_SYSTEMS = "equations|algebra|systems of equations|linear systems|simultaneous equations|algebraic equations"
_DIVISORS = (
    "number theory|primes and divisors|prime factors|remainders and common divisors|factorization|modular arithmetic"
    "|greatest common divisors|inverses and powers modulo a number|divisibility questions"
)
_CALCULUS = "calculus|derivatives and integrals|differentiation and integration|slopes and areas under curves"
_FUNCTIONS = "Python functions|coding|small scripts|programming|list algorithms in Python|code from a description"
_QUOTING = _ways(
    "stating what a program printed|reading off a program's output|repeating the output of a run"
    "|turning printed output into an answer|passing on computed results"
)
_NO_MATH = _ways("mathematics|sums|calculation|arithmetic and algebra|numbers and equations")
_NO_CODE = _ways("code|programming|writing software|scripts and functions|algorithms")
_NO_FACTS = _ways("facts|trivia|questions about people or places|look-ups|knowledge questions|documents")
_NO_RECORDS = _ways("customer records|database edits|CRM requests|orders and accounts|changes to customer data")

PARTS: dict[str, Parts] = {
    "large": Parts(
        skills=(
            _sized(_SUMS, "up to 16 digits|with numbers of sixteen digits or fewer|on fairly long numbers"),
            _sized(_SYSTEMS, "with up to three unknowns|in one, two or three unknowns|up to degree three"),
            _sized(_CALCULUS, "of every kind|at any level, second derivatives included|whatever the number of rules"),
            _sized(_DIVISORS, "with medium-sized factors|for numbers up to a dozen digits"),
            _sized(_FUNCTIONS, "of up to five steps|with advanced algorithms|in at most five stages"),
            _sized("facts from retrieved documents|reading comprehension|joining sources", "over one or two hops"),
            _sized(
                "customer records|edits to orders and customers|database changes|CRM updates",
                "up to four at a time|with conditions over many rows|in short lists",
            ),
            _QUOTING,
        ),
        limits=(
            _ways("numbers beyond 16 digits|extremely long numbers|arithmetic on seventeen digits or more"),
            _ways("four unknowns|systems larger than three unknowns|quartic equations"),
            _ways("factors in the tens of thousands|splitting huge integers|large factorizations"),
            _ways("programs of six or more steps|very long coding instructions|specifications with seven steps"),
            _ways("chains of three documents|three-hop questions|facts three links away"),
            _ways("more than four record changes|six edits in one request|long lists of database edits"),
            _ways("finding documents|searching for sources"),
        ),
        notes=_ways(
            "Handles nearly everything at a medium or hard level.|Covers all subjects in one model."
            "|For facts, fetch the documents first.|Strong across the board, but not without bounds."
            "|One call is usually enough.|Needs the sources in front of it when asked for a fact."
        ),
    ),
    "small": Parts(
        skills=(
            _sized(
                "arithmetic|sums and products|everyday sums|quick calculations|whole-number calculation",
                "up to six digits|with short numbers|on numbers below a million",
            ),
            _ways(
                "equations in one unknown|simple equations|linear equations in x|solving for a single unknown"
                "|first-degree algebra"
            ),
            _ways("derivatives of polynomials|beginner's calculus|differentiating a polynomial|easy derivatives"),
            _ways("common divisors of small numbers|tiny prime factors|remainders of four-digit numbers"),
            _sized(
                "Python functions|tiny scripts|easy coding|short programs",
                "of two or three plain steps|up to three steps",
            ),
            _ways(
                "one fact from a document|a single fact from a retrieved source|one-hop questions with sources at hand"
                "|picking a fact out of one passage"
            ),
            _QUOTING,
        ),
        limits=(
            _ways("seven digits or more|long numbers|big-number calculation"),
            _ways("several unknowns|quadratic equations|systems of equations"),
            _ways("integrals|serious calculus|the product rule"),
            _ways("large factors|numbers of five digits in number theory"),
            _ways("advanced algorithms|programs of four steps or more|demanding code"),
            _ways("chains of facts|two-hop questions|joining several documents"),
            _NO_RECORDS,
        ),
        notes=_ways(
            "Good enough for the easy cases.|Errs as soon as a question gets long.|Ideal after a program has run."
            "|Not reliable on hard problems.|Does a little of everything.|Keep the request short.|Easily overwhelmed."
        ),
    ),
    "math": Parts(
        skills=(
            _sized(
                f"{_SUMS}|big-number calculation|exact sums",
                "up to 24 digits|on two dozen digits|with numbers as long as twenty-four digits",
            ),
            _sized(_SYSTEMS, "with up to four unknowns|in one to four unknowns|up to degree four"),
            _ways("roots of polynomials|solving for unknowns|finding x|every solution of an equation"),
            _sized(_CALCULUS, "up to integration by parts|with the product rule|of single products"),
            _sized(_DIVISORS, "with large factors|for numbers up to twenty digits|with divisors up to a million"),
            _QUOTING,
        ),
        limits=(
            _NO_FACTS,
            _NO_CODE,
            _NO_RECORDS,
            _ways("second derivatives of long products|calculus with five combined rules"),
            _ways("numbers past 24 digits|sums of thirty digits"),
        ),
        notes=_ways(
            "Knows mathematics and nothing besides.|Works by hand, without running a program."
            "|Prefers exact expressions to decimals.|Can also state the result of a program that someone else ran."
            "|Anything that is not mathematics is refused."
        ),
    ),
    "coder": Parts(
        skills=(
            _sized(_FUNCTIONS, "of up to eight steps|after long specifications|in as many as eight stages"),
            _ways(
                "advanced algorithms|dynamic programming|textbook algorithms|tricky algorithms|subsequence puzzles"
                "|algorithmic problems of any level"
            ),
            _ways(
                "functions over lists|filtering and transforming lists|list processing|array manipulation"
                "|turning a description into working code"
            ),
            _ways("correct implementations|solutions that pass hidden tests|clean functions|complete functions"),
        ),
        limits=(_NO_MATH, _NO_FACTS, _NO_RECORDS, _ways("running code|executing programs|quoting a program's output")),
        notes=_ways(
            "Returns source code and does not execute it.|Everything that is not a request for code is declined."
            "|Follows long lists of instructions.|Ask it whenever a function has to be written."
            "|The code itself is the answer."
        ),
    ),
    "runner": Parts(
        skills=(
            _sized(
                f"{_SUMS}|big-number calculation", "of any length|without a digit limit|on numbers as long as you like"
            ),
            _sized(_SYSTEMS, "of any size|with any number of unknowns|by exact elimination"),
            _sized(_DIVISORS, "by brute force|for huge integers|whatever the size"),
            _ways("running a program|executing a computation|computing without rounding|exact results by program"),
        ),
        limits=(
            _ways("calculus|derivatives|integrals|symbolic differentiation"),
            _NO_FACTS,
            _NO_RECORDS,
            _ways("stating the final answer|finishing the job alone|wording a reply|closing the conversation"),
        ),
        notes=_ways(
            "Prints a result into the evidence; another expert has to state it."
            "|Follow up with a model that reads the output."
            "|It shows output only, so a second tool must give the answer."
            "|Never ends the task: somebody else reports what was printed."
            "|The printed result still needs an expert who says it."
            "|Use it first, then let a generalist or a mathematician quote the result."
        ),
    ),
    "reader": Parts(
        skills=(
            _sized(
                "facts from documents|answers from passages|trivia with the sources at hand|reading retrieved texts"
                "|questions about people, places and companies",
                "over up to three hops|across three documents|along chains of one to three links",
            ),
            _ways("joining facts|linking passages|following a chain of facts|combining sources|multi-hop questions"),
            _ways("extracting a name or a year|reading what the search brought up|quoting the right source"),
        ),
        limits=(
            _ways("searching|finding documents|retrieval|questions without documents|answers from memory"),
            _NO_MATH,
            _NO_CODE,
            _NO_RECORDS,
        ),
        notes=_ways(
            "Has to be given the documents first.|Knows only what lies in the evidence."
            "|Call it after the search has found a page for each hop.|Cannot open a source by itself."
            "|When a document is missing it says so instead of guessing.|States the answer once the sources are there."
        ),
    ),
    "search": Parts(
        skills=(
            _ways(
                "finding documents|retrieving passages|looking up sources|fetching articles|opening the next document"
                "|searching the knowledge base"
            ),
            _ways(
                "articles on people, places and companies|background on persons, towns and firms"
                "|pages about rivers, regions and institutes|facts kept in articles|encyclopedic facts"
            ),
            _ways(
                "one hop of a chain per call|the next link of a chain|step-by-step retrieval|one more source each time"
            ),
        ),
        limits=(
            _ways("answers|stating a result|drawing conclusions|reading for you|final replies"),
            _NO_MATH,
            _NO_CODE,
            _NO_RECORDS,
        ),
        notes=_ways(
            "Each call opens one hop.|Call it again for every further hop.|It ends nothing; a reader has to answer."
            "|Returns texts, no answers.|Uses what is already in the evidence to decide where to look next."
            "|Two links need two calls, three links three."
        ),
    ),
    "clerk": Parts(
        skills=(
            _sized(
                "edits of single customers|changes to customer records|CRM updates|account changes|record edits",
                "two per call|a pair at a time|one record at a time",
            ),
            _ways(
                "new cities, plans or e-mail addresses|moving a customer or switching a plan|updating contact details"
            ),
            _ways("crediting a customer|cancelling and refunding an order|refunds and credits|order cancellations"),
        ),
        limits=(
            _ways(
                "bulk updates|rules over many records|edits to all who meet a condition|conditional changes"
                "|mass edits|changes to everyone in a city"
            ),
            _NO_MATH,
            _NO_CODE,
            _NO_FACTS,
        ),
        notes=_ways(
            "Makes two changes a call and reports how far it got.|Call again until every change is made."
            "|Four changes take two calls, six take three.|Picks up where the last call left off."
            "|Works through a list two entries at a time.|Refuses the whole request when part of it is a bulk rule."
        ),
    ),
    "analyst": Parts(
        skills=(
            _sized(
                "changes to customer records|database edits|customer and order updates|CRM changes",
                "in one call|however many there are|by SQL",
            ),
            _ways(
                "bulk updates|conditional updates|changes to all customers who meet a condition|mass edits by rule"
                "|edits of whole groups|updates for everyone in a city or on a plan|sweeps over open orders"
            ),
            _ways("single edits|refunds and credits|plan switches|address and e-mail changes|cancelled orders"),
            _ways("long requests|requests of six changes and more|many changes in a row|lists of instructions"),
        ),
        limits=(_NO_MATH, _NO_CODE, _NO_FACTS, _ways("searching documents|general questions|anything but records")),
        notes=_ways(
            "One call completes the request.|Writes SQL, so conditions are no trouble."
            "|Needs no second call.|Works on the customer database and nowhere else."
            "|Handles single rows and whole tables alike."
        ),
    ),
}
