"""SQL: turn a question of the office into one SELECT on the shop's table of sales.

A question is put together from a measure, filters and a grouping; so is the query that answers it. A
completion passes if its query gives the same rows on two invented tables, so that luck on one of them is not
enough. How it is written does not matter, and neither do the names of its columns.

Queries of a model run in SQLite alone, in memory, and its authorizer lets them do nothing but read this table
and call the functions listed here: no files, no attached databases, no extensions, no writing. Limits hold on
steps, length and rows (https://www.sqlite.org/security.html).
"""

import itertools
import random
import re
import sqlite3
from collections.abc import Iterator
from functools import cache

from groschen import Problem, Verdict

NUM_QUESTIONS = 3_000
SHARES = {"dev": 0.1, "test": 0.25}
SCHEMA = """\
CREATE TABLE sales (day TEXT, city TEXT, article TEXT, customer TEXT, pieces INTEGER, euros REAL)"""
PROMPT = """{schema}

Each row is one sale. A day is written like '2025-03-31'; euros is what was paid for the whole sale.

{question} Answer with one SQLite query, nothing else."""

# Tried on dev to find the base's best prompt: what a person would add who looks at its mistakes.
INSTRUCTIONS = (
    "Select what was asked for and nothing more.",
    "Find months and years like this: day LIKE '2024-06-%'. Use count(*) for sales, count(DISTINCT customer) "
    "for customers, sum(pieces) for pieces and sum(euros) for money.",
    "For example, 'How many pieces were sold in Wien in 2024 for each article?' is answered by: "
    "SELECT article, sum(pieces) FROM sales WHERE city = 'Wien' AND day LIKE '2024-%' GROUP BY article",
)
CITIES = ("Berlin", "Hamburg", "Köln", "Leipzig", "Wien", "Zürich")
ARTICLES = ("drill", "hammer", "ladder", "lamp", "saw", "vice")
YEARS = (2023, 2024, 2025)
MONTHS = {"January": "01", "March": "03", "June": "06", "September": "09", "December": "12"}
MEASURES = {
    "How many sales were there": "count(*)",
    "How many different customers bought something": "count(DISTINCT customer)",
    "How many pieces were sold": "sum(pieces)",
    "How much money did we take": "sum(euros)",
}
FUNCTIONS = frozenset(
    "count sum total avg min max round abs length lower upper trim substr substring instr like glob coalesce "
    "ifnull nullif iif date datetime strftime julianday group_concat".split()
)
STEPS, ROWS, CHARACTERS = 400_000, 500, 2_000  # of SQLite's machine, of a result, of a query


def load() -> Iterator[Problem]:
    """The questions, the same ones each time, none of them twice, and none that is about no sale at all."""
    seen: set[str] = set()
    for number in itertools.count():
        question, query = ask(random.Random(f"question {number}"))
        if question not in seen and rows(query, 1) != [] != rows(query, 2):
            seen.add(question)
            message = {"role": "user", "content": PROMPT.format(schema=SCHEMA, question=question)}
            yield Problem(key=f"q-{number:05}", messages=[message], answer=query)
        if len(seen) == NUM_QUESTIONS:
            return


def verify(problem: Problem, text: str) -> Verdict:
    """Passed if the query gives the rows of the reference on both tables."""
    query = query_in(text)
    try:
        passed = all(rows(query, seed) == rows(problem.answer, seed) for seed in (1, 2))
    except (sqlite3.Error, TooMuch) as error:
        return Verdict(reward=0.0, passed=False, parts={"format": False, "query": query, "why": str(error)})
    why = None if passed else "other rows"
    return Verdict(reward=float(passed), passed=passed, parts={"format": True, "query": query, "why": why})


def gold(problem: Problem) -> str:
    """The reference, as models like to write it."""
    return f"```sql\n{problem.answer};\n```"


def wrong(problem: Problem) -> tuple[str, ...]:
    """One with a column too many, one with every row twice, one that would write, and an empty one."""
    twice = f"SELECT * FROM ({problem.answer}) UNION ALL SELECT * FROM ({problem.answer})"
    return (f"SELECT 'no', * FROM ({problem.answer})", twice, "DELETE FROM sales", "")


def ask(draw: random.Random) -> tuple[str, str]:
    """A question in words, and the query that answers it."""
    measure = draw.choice(list(MEASURES))
    question, conditions = [measure], []
    groupings = ["city", "article"]
    for name, values, hint in (("city", CITIES, "in {}"), ("article", ARTICLES, "with the article '{}'")):
        if draw.random() < 0.5:
            value = draw.choice(values)
            question.append(hint.format(value))
            conditions.append(f"{name} = '{value}'")
            groupings.remove(name)
    if draw.random() < 0.6:
        year, month = draw.choice(YEARS), draw.choice(["", *MONTHS])
        question.append(f"in {month} {year}" if month else f"in {year}")
        conditions.append(f"day LIKE '{year}-{MONTHS[month]}-%'" if month else f"day LIKE '{year}-%'")
    if draw.random() < 0.25:
        least = draw.randrange(2, 8)
        question.append(f"counting sales of at least {least} pieces only")
        conditions.append(f"pieces >= {least}")
    first = last = ""
    if groupings and draw.random() < 0.4:
        name = draw.choice(groupings)
        question.append(f"for each {name}")
        first, last = f"{name}, ", f" GROUP BY {name}"
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"{' '.join(question)}?", f"SELECT {first}{MEASURES[measure]} FROM sales{where}{last}"


def query_in(text: str) -> str:
    """The last ``` block if there is one, else the whole text."""
    blocks = re.findall(r"```\w*\s*\n(.*?)```", text, re.DOTALL)
    return (blocks[-1] if blocks else text).strip()


class TooMuch(Exception):
    """A query or its result is too large."""


def rows(query: str, seed: int) -> list[tuple[str, ...]]:
    """The rows of a query, sorted, because no question asks for an order; numbers to four places.

    Raises TooMuch, or what SQLite says of the query.
    """
    if len(query) > CHARACTERS:
        raise TooMuch(f"a query of {len(query)} characters; {CHARACTERS} are allowed")
    table = sales(seed)
    table.set_progress_handler(lambda: 1, STEPS)  # a true value ends the query
    result = table.execute(query).fetchmany(ROWS + 1)
    if len(result) > ROWS:
        raise TooMuch(f"a result of more than {ROWS} rows")
    return sorted(tuple(map(as_text, row)) for row in result)


def as_text(value: object) -> str:
    """A value of a row: 2 and 2.0 are one number."""
    return f"{value:.4f}" if isinstance(value, int | float) else str(value)


@cache
def sales(seed: int) -> sqlite3.Connection:
    """3,000 sales in a table that can only be read."""
    draw = random.Random(f"shop {seed}")
    table = sqlite3.connect(":memory:")
    table.execute(SCHEMA)
    for _ in range(3_000):
        day = f"{draw.choice(YEARS)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
        who = (draw.choice(CITIES), draw.choice(ARTICLES), f"Customer {draw.randrange(200)}")
        # Sums of quarters are exact, in whatever order a query adds them up.
        what = (draw.randrange(1, 9), draw.randrange(300, 9_000) / 4)
        table.execute("INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?)", (day, *who, *what))
    table.commit()
    table.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)  # bytes of one value
    table.set_authorizer(only_reading)
    return table


def only_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Whether SQLite may do this: read the table, and call functions that take little and touch nothing."""
    is_allowed = (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
        or (action == sqlite3.SQLITE_READ and first in ("sales", "", None))
        or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS)
    )
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY
