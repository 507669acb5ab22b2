"""Other ways to describe each expert, for `Workbench.sample`; the fixed catalog has its own in TOML."""

from __future__ import annotations

from orchestra_graph.workbench.wording import Phrases

DESCRIPTIONS: dict[str, Phrases] = {
    "large": Phrases(
        train=(
            "The strongest generalist: mathematics, code, records and, given documents, facts. Fails beyond 16 digits, "
            "five program steps or two facts in a chain.",
            "A frontier model for hard questions of every sort: any calculus, tricky algorithms, up to four record "
            "changes. Loses track of very long numbers and instructions.",
            "Top-tier all-rounder. Does demanding maths, writes code, reads documents, changes records. Gives up on "
            "large factorizations and four unknowns.",
        ),
        held_out=(
            "Big flagship model that is good at nearly everything, second derivatives included. Very long numbers, "
            "many-step jobs and facts without sources are beyond it.",
            "Broad expert of the highest class. Trust it with hard single problems, not with twenty-digit products or "
            "five record changes.",
        ),
    ),
    "small": Phrases(
        train=(
            "A small generalist for easy questions: six digits, one unknown, short scripts, one fact from a document. "
            "States what a program printed.",
            "Tiny all-purpose model. Fine for simple requests and for reading off results; wrong on anything long.",
            "Lightweight assistant: short sums, two- or three-step programs, single facts. Repeats a program's output.",
        ),
        held_out=(
            "Compact model with little depth: easy maths, easy code, one hop of reading. Good at stating a result that "
            "lies in the evidence.",
            "Entry-level generalist. Ask it simple things only, or let it report the output of code that was run.",
        ),
    ),
    "math": Phrases(
        train=(
            "Mathematics specialist: sums to 24 digits, equations and systems, calculus up to integration by parts, "
            "large factors. Nothing else.",
            "Solves equations, derivatives, integrals, primes and remainders. Knows no facts and writes no code.",
            "A model trained on mathematics. Exact with long numbers and four unknowns; second derivatives of long "
            "products are too much.",
        ),
        held_out=(
            "Expert for formulas: algebra, calculus, number theory, long-hand arithmetic. Declines every other field.",
            "A mathematician. Give it equations, integrals, factorizations or sums, and nothing else.",
        ),
    ),
    "coder": Phrases(
        train=(
            "Programming specialist: writes Python functions, advanced algorithms and long step lists included.",
            "Code model. Implements whatever function is described, up to eight steps. Does no other work.",
            "Writes correct Python from a description. Declines questions that do not ask for code.",
        ),
        held_out=(
            "A software engineer for single functions, from simple filters to dynamic programming. Only for code.",
            "Turns a specification into a Python function, however many steps it has.",
        ),
    ),
    "runner": Phrases(
        train=(
            "Writes a Python program for a calculation and runs it: numbers of any length, equations, factors. The "
            "output joins the evidence; somebody has to state the answer.",
            "Code runner for arithmetic, algebra and number theory. Shows what was printed and does not end the run.",
            "Calculates by program in a sandbox, without rounding. Follow it with an expert that reads off the result.",
        ),
        held_out=(
            "Computes by executing code: sums, equations, primes. Brings the printed result as evidence only.",
            "A calculator that programs itself. Exact, but a generalist or mathematician must give the final answer.",
        ),
    ),
    "reader": Phrases(
        train=(
            "Reads the documents found so far and joins up to three facts. Cannot search, and knows nothing by itself.",
            "Reading specialist for look-ups: answers from documents in the evidence, over several hops.",
            "Answers questions of fact once the right documents have been found, one for each hop.",
        ),
        held_out=(
            "Extracts and connects facts from retrieved text, chains of three included. Without text it is at a loss.",
            "A careful reader. Put the documents before it and it follows the trail to the answer.",
        ),
    ),
    "search": Phrases(
        train=(
            "Searches the knowledge base for the next document that the question needs. One call a hop; ends nothing.",
            "Finds documents about people, places and companies, going by what the evidence tells already.",
            "Document search. Call it again for each further link of a chain of facts.",
        ),
        held_out=(
            "Retrieves background documents, three at a time, following the trail by one step with every call.",
            "Opens the only way to the facts of the knowledge base: looks up what is still missing.",
        ),
    ),
    "clerk": Phrases(
        train=(
            "Records clerk: changes single customers and orders, two changes a call; call again for the rest. No rules "
            "over many records.",
            "Carries out simple record requests in the customer database, two at a time, and reports how far it is.",
            "Front desk for customer data. Edits one record after the other; declines conditions on all customers.",
        ),
        held_out=(
            "Makes individual edits in the customer database, a pair with each call. No 'every customer who' requests.",
            "Office assistant for single changes of customers and orders; call it anew after every second change.",
        ),
    ),
    "analyst": Phrases(
        train=(
            "Database analyst: changes customer records by SQL, whole groups by condition included, all in one call.",
            "Carries out long and conditional requests on customers and orders at once.",
            "Records specialist for bulk changes: all customers of a city, all open orders, any number of steps.",
        ),
        held_out=(
            "Senior database worker. Any number of record changes in one go, also for all that meet a condition.",
            "Writes and runs SQL on customers and orders; suited for requests about many records.",
        ),
    ),
}
