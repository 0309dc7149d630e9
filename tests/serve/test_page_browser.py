"""The chat page in a real browser: talking, stopping, branching, faults.

Against a stand-in for the server, whose answers are known; and in the end against `groschen serve penny`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

from groschen.tasks.arithmetic import read_expression
from serve.page_browser import (
    Browser,
    Page,
    ask,
    chromium,
    groschen_serve,
    last_answer,
    module,
    opened,
    served,
    wait_for_end,
)
from serve.page_upstream import RICH, Upstream, app

pytestmark = pytest.mark.slow  # minutes of a browser, and its waits need a machine that is not full

NO_ANSWER = {"message": "Slow down.", "type": "rate_limit_error", "code": None}


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


# -- an answer


def test_an_answer_is_drawn_as_markdown_with_its_maths_and_its_code(page: Page) -> None:
    ask(page, "Why?")
    answer = page.locator(".answer").last
    assert answer.locator("h3").inner_text() == "The root of 2"
    assert answer.locator("strong").inner_text() == "bold"
    assert answer.locator("td").all_inner_texts() == ["1", "one", "2", "two"]
    assert answer.locator("figure.code code").inner_text().startswith("def merge(spans):\n    return")
    assert "3*5+8*2 stays a sum" in answer.inner_text()
    assert "$5 and $10 stay money" in answer.inner_text()
    assert answer.locator("p code").first.inner_text() == "$x$ \\(y\\)"
    sources = answer.locator("math annotation").all_text_contents()
    assert [re.sub(r"\s+", " ", text) for text in sources] == [
        "\\sqrt{2} = \\frac{a_1*b*c}{d}",
        "\\int_0^1 x^2 \\, dx = \\frac{1}{3} \\qquad \\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}",
    ]
    assert answer.locator(".final code").inner_text() == "(8-5)*3"


def test_what_a_model_writes_can_do_nothing_and_fetch_nothing(page: Page, upstream: Upstream) -> None:
    upstream.answers += [
        RICH,
        "[x](javascript:document.title='owned') <svg onload=alert(1)> ![p](https://example.org/p.png)\n\n"
        "<style>body{display:none}</style>\n<iframe src='https://example.org'></iframe>\n\n"
        "$\\href{javascript:alert(1)}{x}$ $\\includegraphics{https://example.org/x.png}$ "
        '<a href="data:text/html,x">d</a>',
    ]
    ask(page, "Do harm.")
    ask(page, "Do more.")
    assert page.locator(".answer img, .answer script, .answer style, .answer iframe").count() == 0
    assert page.locator(".answer svg:not(.icon, .katex svg)").count() == 0
    for link in page.locator(".answer a").all():
        assert str(link.get_attribute("href") or "#").startswith(("https:", "#"))
        assert link.get_attribute("href") is None or "noopener" in str(link.get_attribute("rel"))
    assert page.title() == "Do harm. \u00b7 groschen"


def test_the_thinking_is_folded_away_with_its_length_and_can_be_opened_by_key(page: Page) -> None:
    ask(page, "Think.")
    details = page.locator("details.reasoning")
    assert details.get_attribute("open") is None
    assert re.fullmatch(r"Thought\s+10 tokens, <?\s?[\d.]+\ss", details.locator("summary").inner_text())
    assert page.locator(".reasoning-text").count() == 0
    page.locator("details.reasoning summary").focus()
    page.keyboard.press("Enter")
    assert "3*3=9 ✓" in page.locator(".reasoning-text").inner_text()
    assert "8-3=5" not in last_answer(page)


def test_the_thinking_is_open_while_it_lasts(page: Page, upstream: Upstream) -> None:
    upstream.delay_s = 0.1
    page.fill("#message", "Think.")
    page.press("#message", "Enter")
    page.wait_for_selector("details.reasoning[open] .reasoning-text")
    assert page.locator("details.reasoning summary").inner_text().startswith("Thinking")
    page.wait_for_selector("details.reasoning:not([open])")


def test_the_line_below_says_tokens_seconds_first_token_and_speed(page: Page) -> None:
    ask(page, "Count.")
    line = page.locator(".cost summary").inner_text().replace("\u202f", " ")
    seconds = r"<? ?[\d.]+ s"
    assert re.fullmatch(rf"1\d\d tokens · {seconds} · first after {seconds} · [\d,.]+ tokens/s", line), line
    page.locator(".cost summary").click()
    assert "34 tokens read" in page.locator(".cost").inner_text()


def test_stop_keeps_what_was_written_and_ends_it_at_the_server(page: Page, upstream: Upstream) -> None:
    upstream.delay_s = 0.02
    page.fill("#message", "Go on for ever.")
    page.press("#message", "Enter")
    page.wait_for_selector(".answer > .markdown h3")
    page.keyboard.press("Escape")
    wait_for_end(page)
    assert page.locator(".finish").inner_text() == "Stopped."
    assert 0 < len(last_answer(page)) < 300
    page.wait_for_timeout(300)
    assert upstream.was_left == 1
    assert page.evaluate("document.activeElement.id") == "message"


# -- branches


def test_asking_again_and_editing_keep_every_version(page: Page, upstream: Upstream) -> None:
    upstream.answers += ["first", "second", "third"]
    ask(page, "One")
    page.get_by_role("button", name="Answer again").click()
    wait_for_end(page)
    assert last_answer(page) == "second"
    assert "2\u202f/\u202f2" in page.locator(".answer .versions").inner_text()
    page.get_by_role("button", name="Earlier version").click()
    page.get_by_text("first", exact=True).wait_for()
    assert last_answer(page) == "first"
    assert page.evaluate("document.activeElement.title") == "Earlier version"
    page.get_by_role("button", name="Edit and ask again").click()
    page.get_by_label("Edit the message").fill("Two")
    page.keyboard.press("Enter")
    wait_for_end(page)
    assert last_answer(page) == "third"
    assert [body["messages"] for body in upstream.bodies] == [
        [{"role": "user", "content": text}] for text in ("One", "One", "Two")
    ]
    page.locator(".question").get_by_role("button", name="Earlier version").click()
    page.locator(".said", has_text="One").wait_for()
    assert (page.locator(".said").inner_text(), last_answer(page)) == ("One", "first")


def test_a_conversation_is_still_there_after_a_reload_with_the_branch_that_was_chosen(
    page: Page, upstream: Upstream
) -> None:
    upstream.answers += ["first", "second", "third"]
    ask(page, "One")
    page.get_by_role("button", name="Answer again").click()
    wait_for_end(page)
    page.get_by_role("button", name="Earlier version").click()
    page.get_by_text("first", exact=True).wait_for()
    page.reload()
    page.wait_for_selector(".answer")
    assert last_answer(page) == "first"
    ask(page, "And then?")
    assert [each["content"] for each in upstream.bodies[-1]["messages"]] == ["One", "first", "And then?"]  # type: ignore[attr-defined]


# -- two models, settings


def test_two_models_answer_one_prompt_side_by_side_each_with_its_own_past(
    page: Page, upstream: Upstream
) -> None:
    page.select_option("#second", "teacher")
    ask(page, "One")
    columns = [box for each in page.locator(".answer").all() if (box := each.bounding_box())]
    assert len(columns) == 2
    assert columns[0]["y"] == columns[1]["y"] and columns[0]["x"] + columns[0]["width"] < columns[1]["x"]
    assert page.locator(".by").all_inner_texts() == ["penny", "teacher"]
    assert sorted(str(body["model"]) for body in upstream.bodies) == ["penny", "teacher"]


def test_the_settings_are_sent_and_empty_ones_are_not(page: Page, upstream: Upstream) -> None:
    ask(page, "One")
    assert set(upstream.bodies[0]) == {"model", "messages", "stream", "stream_options"}
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0,7")
    page.get_by_label("Top-p").fill("2")
    page.get_by_label("Most tokens of an answer").fill("1.000")
    page.get_by_label("Seed").fill("7")
    page.get_by_text("Off", exact=True).click()
    assert page.get_by_role("alert").all_inner_texts() == [
        "A number from 0 to 1 is needed here.",
        "A whole number from 1 to 1,000,000 is needed here.",
    ]
    page.get_by_label("Most tokens of an answer").fill("1000")
    page.keyboard.press("Escape")
    ask(page, "Two")
    sent = upstream.bodies[1]
    assert (sent["temperature"], sent["max_completion_tokens"], sent["seed"]) == (0.7, 1000, 7)
    assert "top_p" not in sent and sent["reasoning_effort"] == "none"
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}  # type: ignore[index]


# -- probabilities


def test_every_token_shows_its_probability_and_what_else_it_could_have_been(
    page: Page, upstream: Upstream
) -> None:
    upstream.answers.append("Once upon a time there was a penny.")
    page.get_by_role("button", name="Probabilities").click()
    ask(page, "Tell.")
    assert (upstream.bodies[0]["logprobs"], upstream.bodies[0]["top_logprobs"]) == (True, 5)
    tokens = page.locator(".answer > .chances .token")
    assert "".join(tokens.all_inner_texts()) == "Once upon a time there was a penny."
    looks = page.evaluate(
        "[...document.querySelectorAll('.answer > .chances .token')].slice(0, 5).map((each) => "
        "['Line', 'Style'].map((name) => getComputedStyle(each)[`textDecoration${name}`]).join(' '))"
    )
    assert len(set(looks[1:])) == 4  # told apart without colour
    page.locator(".answer > .chances [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    rows = page.locator(".alternatives tr").all_inner_texts()
    assert [re.sub(r"\s+", " ", row) for row in rows[1:]] == [
        "·upo taken 72%",
        "other 17%",
        "·⏎ 8.4%",
        "all others 2.8%",
    ]
    page.keyboard.press("Escape")
    assert page.locator(".alternatives").count() == 0
    assert page.locator(".legend li").count() == 5


# -- faults


def test_a_missing_key_is_asked_for_and_kept_for_this_tab_alone(browser: Browser, upstream: Upstream) -> None:
    upstream.key = "sk-1"
    with served(app(upstream)) as address, opened(browser, address) as page:
        page.get_by_role("button", name="Enter the API key").click()
        page.get_by_label("API key").fill("sk-1")
        page.get_by_label("API key").press("Tab")
        page.keyboard.press("Escape")
        page.wait_for_selector(".examples button")
        ask(page, "One")
        assert last_answer(page)
        assert "sk-1" not in page.evaluate("JSON.stringify({ ...localStorage })")
        assert "sk-1" in page.evaluate("JSON.stringify({ ...sessionStorage })")


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(page: Page, upstream: Upstream) -> None:
    upstream.faults.append((429, NO_ANSWER, {"Retry-After": "1"}))
    ask(page, "One")
    fault = page.locator(".fault")
    assert "too many requests" in fault.inner_text() and "Slow down." in fault.inner_text()
    assert fault.get_by_role("button").is_disabled()
    page.get_by_role("button", name="Try again", exact=True).click()  # waits until it can be used
    wait_for_end(page)
    assert page.locator(".fault").count() == page.locator(".versions").count() == 0
    assert last_answer(page)


def test_an_answer_that_breaks_off_is_kept_and_a_new_one_comes_beside_it(
    page: Page, upstream: Upstream
) -> None:
    upstream.breaks_after = 20
    ask(page, "One")
    assert "broke off" in page.locator(".fault").inner_text()
    assert "kept" in page.locator(".fault").inner_text()
    assert last_answer(page)
    page.get_by_role("button", name="Try again").click()
    wait_for_end(page)
    assert page.locator(".fault").count() == 0
    assert "2\u202f/\u202f2" in page.locator(".versions").inner_text()


def test_a_server_that_has_gone_is_told_from_one_that_refuses(browser: Browser, upstream: Upstream) -> None:
    with served(app(upstream)) as address, opened(browser, address) as page:
        page.wait_for_selector(".examples button")
        page.context.set_offline(True)
        ask(page, "One")
        assert "can't be reached" in page.locator(".fault").inner_text()
        page.context.set_offline(False)
        upstream.faults.append((400, {"message": "top_p is out of range"}, {}))
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("text=refused")
        assert "top_p is out of range" in page.locator(".fault").inner_text()


# -- the list of conversations


def test_a_conversation_is_renamed_exported_deleted_and_brought_back(page: Page, upstream: Upstream) -> None:
    upstream.answers.append("An answer.")
    ask(page, "A question")
    menu = page.get_by_role("button", name="Actions for")
    menu.click()
    page.get_by_role("button", name="Rename").click()
    page.keyboard.type("My title")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="My title", exact=True).wait_for()
    exported = {}
    for kind in ("Markdown", "JSON"):
        menu.click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Export as {kind}").click()
        exported[kind] = Path(waiting.value.path()).read_text()
    assert exported["Markdown"].startswith("# My title\n\n## You\n\nA question\n\n## penny\n\n<details>")
    assert exported["Markdown"].endswith("\n\nAn answer.\n")
    assert json.loads(exported["JSON"])["nodes"][1]["answers"][0]["text"] == "An answer."
    menu.click()
    page.get_by_role("button", name="Delete").click()
    assert page.locator(".conversation").count() == 0
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.includes('chat')).length") == 0
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector(".answer")
    assert last_answer(page) == "An answer."


def test_copying_takes_the_text_as_the_model_wrote_it(page: Page) -> None:
    ask(page, "Why?")
    page.get_by_role("button", name="Copy the answer").click()
    page.wait_for_selector(".notice:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == RICH
    page.locator("figure.code button").click()
    page.wait_for_selector(".notice:has-text('Code copied')")
    assert str(page.evaluate("navigator.clipboard.readText()")).startswith("def merge")


def test_a_puzzle_is_checked_by_the_page_itself(page: Page) -> None:
    question = "Make 24 from 2, 6 and 6. Use each number once, with + - * / and brackets."
    cases = {"(6+6)*2": "right", "6*(6-2)": "right", "6*6/2": "wrong", "4*6": "numbers", "6+(": "unreadable",
             "6/(6-6)": "unreadable", "(6-2)*6*1": "numbers"}  # fmt: skip
    for text, kind in cases.items():
        found = module(page, "countdown.js", f"m.verdictOf({question!r}, '<answer>{text}</answer>').kind")
        assert found == kind, text
    assert module(page, "countdown.js", f"m.verdictOf({question!r}, 'no idea').kind") == "missing"
    assert module(page, "countdown.js", "m.verdictOf('Hello', '<answer>1</answer>')") is None


# -- the real one


def test_penny_answers_puzzles_through_the_real_server(browser: Browser) -> None:
    with groschen_serve("penny") as address, opened(browser, address) as page:
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Seed").fill("3")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Probabilities").click()
        page.locator(".examples button").first.click()
        wait_for_end(page)
        tokens = "".join(page.locator(".answer > .chances .token").all_inner_texts())
        expression = re.search(r"<answer>(.*)</answer>", tokens)
        assert expression is not None
        read = read_expression(expression[1])
        value = None if read is None else read.value
        verdict = page.locator(".verdict").inner_text()
        assert verdict.startswith("✓") == (value == 24), (tokens, verdict)
        page.locator(".cost summary").click()
        assert "seed 3" in page.locator(".cost").inner_text()
        page.get_by_role("button", name="Probabilities").click()
        page.wait_for_selector(".answer .final code")
        assert page.locator(".answer .final code").inner_text() == expression[1]
        page.get_by_role("button", name="Probabilities").click()
        page.get_by_role("button", name="Answer again").click()
        wait_for_end(page)
        again = "".join(page.locator(".answer > .chances .token").all_inner_texts())
        assert again == tokens  # same seed, same text
