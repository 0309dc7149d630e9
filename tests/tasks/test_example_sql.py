"""The worked task of examples/sql: its verdicts are right, and a model's query can only read the table."""

from pathlib import Path

import pytest

from groschen import Problem
from groschen.tasks.load import load_task
from groschen.tasks.task import judge

TASK = load_task(str(Path(__file__).parents[2] / "examples" / "sql" / "task.py"))
QUESTION = Problem(
    key="pieces",
    messages=[{"role": "user", "content": "How many pieces were sold in Wien for each article?"}],
    answer="SELECT article, sum(pieces) FROM sales WHERE city = 'Wien' GROUP BY article",
)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT article, sum(pieces) AS number FROM sales WHERE city IN ('Wien') GROUP BY 1 ORDER BY 2 DESC",
        "Yes\n```sql\nselect article, total(pieces) from sales where city like 'wien' group by article;\n```",
        "WITH w AS (SELECT * FROM sales WHERE city = 'Wien') SELECT article, sum(pieces) FROM w GROUP BY 1",
    ],
)
def test_any_query_with_the_right_rows_passes(query: str) -> None:
    assert judge(TASK, QUESTION, query).passed


@pytest.mark.parametrize(
    "query",
    [
        "SELECT article, count(pieces) FROM sales WHERE city = 'Wien' GROUP BY article",
        "SELECT article, sum(pieces) FROM sales GROUP BY article",
        "SELECT sum(pieces), article FROM sales WHERE city = 'Wien' GROUP BY article",
        "SELECT article, sum(pieces) FROM sales WHERE city = 'Wien' GROUP BY article LIMIT 5",
    ],
)
def test_other_rows_fail(query: str) -> None:
    verdict = judge(TASK, QUESTION, query)
    assert not verdict.passed and verdict.error is None and verdict.parts["why"] == "other rows"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("ATTACH '/tmp/stolen.db' AS stolen", "not authorized"),
        ("PRAGMA table_info(sales)", "not authorized"),
        ("DELETE FROM sales", "not authorized"),
        ("CREATE TABLE mine AS SELECT * FROM sales", "not authorized"),
        ("VACUUM INTO '/tmp/copy.db'", "denied"),
        ("SELECT load_extension('/tmp/evil.so')", "not authorized"),
        ("SELECT * FROM sqlite_master", "prohibited"),
        ("SELECT readfile('/etc/passwd')", "no such function"),
        ("SELECT printf('%.999999999c', 'x')", "not authorized"),
        ("SELECT randomblob(1000000000)", "not authorized"),
        ("SELECT count(*) FROM sales a, sales b, sales c", "interrupted"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT max(i) FROM n", "interrupted"),
        ("SELECT group_concat(customer) FROM sales", "too big"),
        ("SELECT * FROM sales", "more than"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT '" + "x" * 3000 + "'", "characters"),
    ],
    ids=lambda value: value[:30],
)
def test_a_query_can_do_nothing_but_read_a_little(query: str, why: str) -> None:
    verdict = judge(TASK, QUESTION, query)
    assert not verdict.passed and verdict.error is None and why in str(verdict.parts["why"])
