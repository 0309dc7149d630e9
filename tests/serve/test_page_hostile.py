"""What a model writes can not freeze the chat page, nor end its tab, nor pass for the page's own marks."""

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

from serve.page_browser import Browser, Page, ask, chromium, last_answer, module, opened, served, until
from serve.page_upstream import Upstream, app

pytestmark = pytest.mark.slow  # minutes of a browser, and its waits need a machine that is not full

MATRIX = "\\\\".join("&".join(["1"] * 200) for _ in range(200))
TOO_MUCH = {
    "a matrix of 200 by 200": f"$$\\begin{{pmatrix}}{MATRIX}\\end{{pmatrix}}$$",
    "400 fractions in each other": "$$" + "\\frac{1}{" * 400 + "x" + "}" * 400 + "$$",
    "400 roots in each other": "\\[" + "\\sqrt{" * 400 + "x" + "}" * 400 + "\\]",
    "400 powers of powers": "$$" + "x^{" * 400 + "x" + "}" * 400 + "$$",
    "400 pairs of brackets": "$$" + "\\left(" * 400 + "x" + "\\right)" * 400 + "$$",
    "400 roots as options": "$$" + "\\sqrt[" * 400 + "x" + "]{2}" * 400 + "$$",
    "400 environments": "$$" + "\\begin{matrix}" * 400 + "x" + "\\end{matrix}" * 400 + "$$",
    "400 changes of size": "$$" + "\\large x" * 400 + "$$",
    "400 changes of color": "$$" + "\\color{red} x" * 400 + "$$",
    "a macro that makes half a megabyte": "$$\\def\\a{" + "x" * 900 + "}" + "\\a" * 400 + "$$",
    "a sum of 20,000 terms": "\\[" + "x+" * 20_000 + "x\\]",
}
DEEP = {
    "5,000 quotations": ">" * 5000 + " x",
    "2,000 lists on one line": "- " * 2000 + "x",
    "2,000 numbered lists on one line": "1. " * 2000 + "x",
    "quotations and lists": "> - " * 1000 + "x",
}
FORGED = [
    "\ue0000\ue001", "a \ue00012\ue001 b", "&#xE000;0&#xE001;", "`\ue0000\ue001`", "\ue000x0\ue001",
    "[\ue0000\ue001](https://example.org/\ue0007\ue001 \"\ue0003\ue001\")", "# \ue0001\ue001",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def page(browser: Browser, upstream: Upstream) -> Iterator[Page]:
    with served(app(upstream)) as address, opened(browser, address) as found:
        yield found


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_formula_that_would_hold_up_the_tab_is_shown_as_it_is_written(
    page: Page, upstream: Upstream, text: str
) -> None:
    upstream.answers += [f"Before $a$ {text} after $b$"]
    ask(page, "Draw.")
    assert page.locator(".answer .maths.source").all_text_contents() == [text]
    until(page, "document.querySelectorAll('.answer .maths:not(.source)').length === 2")
    page.reload()
    page.wait_for_selector(".answer .maths.source")
    assert "after" in last_answer(page)


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_blocks_that_are_nested_too_deeply_are_shown_as_they_are_written(
    page: Page, upstream: Upstream, text: str
) -> None:
    upstream.answers += [text]
    ask(page, "Quote.")
    assert page.locator(".answer .written").all_text_contents() == [text]
    page.reload()
    page.wait_for_selector(".answer .written")


@pytest.mark.parametrize("text", FORGED, ids=range(len(FORGED)))
def test_the_marks_of_the_page_can_t_be_forged(page: Page, upstream: Upstream, text: str) -> None:
    upstream.answers += [f"$x^2$ and {text}"]
    ask(page, "Forge.")
    assert page.locator(".answer .maths").count() == 1
    shown = last_answer(page)
    assert "\ue000" in shown and "\ue001" in shown


def test_what_honest_formulas_need_is_drawn(page: Page, upstream: Upstream) -> None:
    deep = "1+\\cfrac{1}{" * 15 + "x" + "}" * 15
    table = "\\\\".join("&".join(["a_{1}"] * 12) for _ in range(12))
    upstream.answers += [
        f"$${deep}$$ $$\\begin{{pmatrix}}{table}\\end{{pmatrix}}$$ $[0, 1) \\cup [2, 3)$ "
        "$\\left[0, \\frac{1}{2}\\right)$ $$\\begin{align} " + "x &= y \\\\" * 60 + "\\end{align}$$"
    ]
    ask(page, "Draw.")
    until(page, "document.querySelectorAll('.answer .maths:not(.source)').length === 5")
    assert page.locator(".answer .maths.source").count() == 0


def test_many_formulas_are_drawn_in_turns_and_all_in_the_end(page: Page, upstream: Upstream) -> None:
    upstream.answers += ["\n\n".join(f"$x_{{{number}}} + \\frac{{a}}{{b}}$" for number in range(500))]
    ask(page, "Draw.")
    until(page, "document.querySelectorAll('.answer .maths:not(.source)').length === 500")


@pytest.mark.parametrize(
    ("tex", "is_heavy"),
    [
        ("{" * 30 + "x" + "}" * 30, False),
        ("{" * 31 + "x" + "}" * 31, True),
        ("{x}" * 100, False),
        ("\\{" * 100, False),
        ("[" * 100, False),
        ("\\sqrt[3]{x}" * 100, False),
        ("\\left[" * 31, True),
        ("\\begin{a}" * 31, True),
        ("\\bf x" * 31, True),
        ("{\\bf x}" * 100, False),
        ("x" * 2000, False),
        ("x" * 2001, True),
        ("\\alpha" * 2000, False),
        ("x " * 10_001, True),
        ("\\def\\a{}", True),
        ("\\let\\a\\b", True),
        ("\\newcommand{\\a}{b}", True),
        ("\\left( x", False),
    ],
)
def test_the_weight_of_a_formula(page: Page, tex: str, is_heavy: bool) -> None:
    weight = module(page, "maths.js", f"m.weigh({json.dumps(tex)})")
    assert isinstance(weight, dict) and weight["isHeavy"] == is_heavy
