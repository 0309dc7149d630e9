"""The chat page for everybody: by keyboard alone, by ear, in two languages, on small screens, in both themes.

Against a stand-in for the server (`page_upstream.py`).
"""

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

from serve.page_browser import (
    PHONE,
    TINY,
    Browser,
    Page,
    ask,
    axe_violations,
    chromium,
    module,
    opened,
    served,
    until,
    wait_for_end,
)
from serve.page_upstream import Upstream, app

pytestmark = pytest.mark.slow  # minutes of a browser, and its waits need a machine that is not full


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def address(upstream: Upstream) -> Iterator[str]:
    with served(app(upstream)) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as found:
        yield found


def focused(page: Page) -> str:
    """The name of what has the focus."""
    return str(
        page.evaluate("(document.activeElement.getAttribute('aria-label') || document.activeElement.id)")
    )


def wait_for_focus(page: Page, name: str) -> None:
    """Until what is called so has the focus."""
    until(
        page, f"(document.activeElement.getAttribute('aria-label') || document.activeElement.id) === '{name}'"
    )


# -- by keyboard


def test_everything_can_be_done_by_keyboard_alone(page: Page, upstream: Upstream) -> None:
    upstream.answers += ["first", "second", "third"]
    until(page, "document.activeElement.id === 'message'")
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    wait_for_end(page)
    assert upstream.bodies[0]["messages"] == [{"role": "user", "content": "One\nline two"}]
    page.locator("main").focus()
    page.keyboard.press("r")
    page.wait_for_selector("text=second")
    wait_for_end(page)
    page.locator("main").focus()
    page.keyboard.press("<")
    page.wait_for_selector("text=first")
    page.keyboard.press(">")
    page.wait_for_selector("text=second")
    page.keyboard.press("t")
    page.wait_for_selector("details.reasoning[open]")
    page.keyboard.press("p")
    page.wait_for_selector(".legend")
    page.keyboard.press("e")
    wait_for_focus(page, "Edit the message")
    page.keyboard.press("Escape")
    page.wait_for_selector(".said")
    page.locator("main").focus()
    page.keyboard.press("n")
    page.wait_for_selector(".examples")
    until(page, "document.activeElement.id === 'message'")


def test_the_help_lists_every_key_and_gives_the_focus_back(page: Page) -> None:
    page.get_by_role("button", name="Help and keys").focus()
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open] kbd")
    keys = page.locator("dialog kbd").all_inner_texts()
    assert keys == ["Enter", "Shift", "Enter", "Esc", *"/njker<>ctpu,?"]
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    wait_for_focus(page, "Help and keys")


def test_single_letters_never_act_while_something_is_typed_and_can_be_switched_off(page: Page) -> None:
    page.locator("#message").focus()
    page.keyboard.type("n?,/rp")
    assert page.input_value("#message") == "n?,/rp"
    assert page.locator("dialog").count() == 0
    page.locator("main").focus()
    page.keyboard.press("Control+p")
    assert page.locator("[aria-pressed=true].toggle").count() == 0
    page.keyboard.press("?")
    page.get_by_label("Single-letter keys").uncheck()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.locator("main").focus()
    page.keyboard.press("p")
    page.keyboard.press("?")
    assert page.locator("dialog").count() == 0
    assert page.locator("[aria-pressed=true].toggle").count() == 0


def test_the_first_tab_stop_skips_to_the_message(page: Page) -> None:
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    page.keyboard.press("Tab")
    skip = page.locator(".skip").first
    assert skip.inner_text() == "Skip to the message field"
    box = skip.bounding_box()
    assert box is not None and box["y"] >= 0
    page.keyboard.press("Enter")
    wait_for_focus(page, "message")


def test_the_tokens_are_one_tab_stop_and_arrow_keys_walk_between_them(page: Page) -> None:
    page.get_by_role("button", name="Probabilities").click()
    ask(page, "Tell.")
    stops = page.locator(".answer > .chances [tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.token") == "3"
    page.keyboard.press("End")
    last = int(str(page.evaluate("document.activeElement.dataset.token")))
    assert last == page.locator(".answer > .chances .token").count() - 1
    assert re.fullmatch(r".+, [<>]?\s?[\d.]+%", focused(page))


# -- by ear


def test_a_screen_reader_is_told_that_it_answers_and_then_the_whole_text_once(
    page: Page, upstream: Upstream
) -> None:
    upstream.answers.append("The **whole** text.\n\n- of it")
    upstream.delay_s = 0.02
    page.evaluate(
        "() => { window.heard = []; const status = document.querySelector('#app > [role=status]');"
        "new MutationObserver(() => window.heard.push(status.textContent))"
        ".observe(status, { subtree: true, childList: true, characterData: true }); }"
    )
    page.fill("#message", "Say it.")
    page.press("#message", "Enter")
    page.wait_for_selector(".answer[aria-busy=true]")
    assert page.locator(".answer [aria-live], .answer [role=status], .answer [role=log]").count() == 0
    wait_for_end(page)
    until(page, "window.heard.length > 1")
    heard = page.evaluate("window.heard")
    assert heard[0] == "Answering"
    assert [re.sub(r"\s+", " ", text) for text in heard[1:]] == ["The whole text. of it"]
    assert page.locator(".answer").get_attribute("aria-busy") == "false"


def test_with_the_live_view_off_the_answer_appears_when_it_is_whole(page: Page, upstream: Upstream) -> None:
    upstream.delay_s = 0.02
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Show the answer while it is written").uncheck()
    page.keyboard.press("Escape")
    page.fill("#message", "Say it.")
    page.press("#message", "Enter")
    page.wait_for_selector("text=Writing")
    assert page.locator(".answer .markdown").count() == 0
    wait_for_end(page)
    assert page.locator(".answer .markdown").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("size", "is_touch"), [((1280, 900), False), (TINY, True)])
def test_axe_finds_nothing_serious_on_any_view(
    browser: Browser, address: str, scheme: str, size: tuple[int, int], is_touch: bool
) -> None:
    with opened(browser, address, size=size, scheme=scheme, is_touch=is_touch, bypass_csp=True) as page:
        page.wait_for_selector(".examples button")
        assert axe_violations(page) == []
        page.click(".toggle")
        page.select_option("#second", "teacher")
        ask(page, "Why?")
        page.locator(".answer > .chances .token").first.focus()
        assert axe_violations(page) == []
        page.click(".toggle")
        page.locator("details.reasoning summary").first.click()
        assert axe_violations(page) == []
        for key in ("?", ","):
            page.evaluate("document.activeElement.blur()")
            page.keyboard.press(key)
            page.wait_for_selector("dialog[open]")
            assert axe_violations(page) == []
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog", state="detached")
        if is_touch:
            page.click("#open-side")
        assert axe_violations(page) == []


@pytest.mark.parametrize("path", ["/glance", "/glance?ask"])
def test_axe_finds_nothing_serious_on_the_glance(browser: Browser, address: str, path: str) -> None:
    with opened(browser, address, size=(162, 197), bypass_csp=True) as page:
        page.goto(address + path)
        assert axe_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 162


# -- two languages


def test_the_page_speaks_the_language_of_the_browser_and_changes_it_without_losing_anything(
    browser: Browser, address: str, upstream: Upstream
) -> None:
    upstream.answers.append("Eins.")
    with opened(browser, address, language="de-DE") as page:
        assert page.get_attribute("html", "lang") == "de"
        assert page.get_attribute("#message", "placeholder") == "Nachricht schreiben"
        ask(page, "Eins?")
        assert "Tokens · " in page.locator(".cost").inner_text()
        page.get_by_role("button", name="EN: English").click()
        page.wait_for_selector("html[lang=en]")
        assert page.locator(".answer .markdown").inner_text() == "Eins."
        assert "first after" in page.locator(".cost").inner_text()
        page.reload()
        assert page.get_attribute("html", "lang") == "en"
        assert page.goto(f"{address}/glance") and "Ready" in page.inner_text("main")


def test_numbers_are_written_and_read_as_the_language_does(page: Page) -> None:
    for typed, value in {"3,5": 3.5, "3.5": 3.5, " 7 ": 7, ",5": 0.5, "": None}.items():
        assert module(page, "words.js", f"m.typedNumber({typed!r})") == value
    for typed in ("1.000,5", "x", "1e3", "3,,5"):
        assert module(page, "words.js", f"Number.isNaN(m.typedNumber({typed!r}))"), typed
    shares = {
        1: "100%",
        0.99951: ">\u202f99.9%",
        0.5: "50%",
        0.0834: "8.3%",
        0.00001: "<\u202f0.1%",
        0: "0.0%",
    }
    for share, text in shares.items():
        assert module(page, "words.js", f"m.percent({share})") == text
    assert module(page, "words.js", "m.seconds(0.01)") == "<\u202f0.1\u202fs"
    assert module(page, "words.js", "m.seconds(83)") == "1\u202fmin 23\u202fs"


# -- small screens, themes


@pytest.mark.parametrize("size", [PHONE, TINY, (640, 320)])
def test_a_small_screen_needs_no_sideways_scrolling_and_its_targets_are_large(
    browser: Browser, address: str, size: tuple[int, int]
) -> None:
    with opened(browser, address, size=size, language="de-DE", is_touch=True) as page:
        page.wait_for_selector(".examples button")
        page.click(".toggle")
        page.select_option("#second", "teacher")
        ask(page, "Warum?" * 30)
        page.click(".toggle")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate("document.querySelector('main').scrollWidth") <= size[0]
        small = (
            "[...document.querySelectorAll('.talk button, .talk select')].filter((each) => each.offsetParent)"
        )
        small += ".map((each) => [each.title || each.id || each.textContent, each.getBoundingClientRect()])"
        small += ".filter(([, box]) => box.height < 44 || box.width < 35).map(([name]) => name)"
        assert page.evaluate(small) == []
        composer = page.locator(".composer").bounding_box()
        assert composer is not None and composer["y"] + composer["height"] <= size[1]


def test_the_list_of_a_small_screen_opens_closes_and_is_out_of_reach_when_closed(
    browser: Browser, address: str
) -> None:
    with opened(browser, address, size=PHONE, is_touch=True) as page:
        side = page.locator(".side")
        assert side.get_attribute("inert") is not None
        page.click("#open-side")
        until(page, "document.activeElement.className === 'new'")
        assert page.locator(".talk").get_attribute("inert") is not None
        page.keyboard.press("Escape")
        page.wait_for_selector(".side[inert]", state="attached")
        until(page, "document.activeElement.id === 'open-side'")


def test_a_chosen_theme_beats_the_system_from_the_first_moment_on(browser: Browser, address: str) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    with opened(browser, address, scheme="dark") as page:
        dark = page.evaluate(background)
        page.get_by_role("button", name="Colours: like the system").click()
        page.wait_for_selector("html[data-theme=light]")
        assert page.evaluate(background) != dark
        page.reload(wait_until="commit")
        page.wait_for_selector("html[data-theme=light]", state="attached")
        page.wait_for_selector("#message")


def test_nothing_moves_for_those_who_asked_for_that(
    browser: Browser, address: str, upstream: Upstream
) -> None:
    upstream.delay_s = 0.05
    for motion, moves in (("reduce", False), ("no-preference", True)):
        with opened(browser, address, motion=motion) as page:
            page.fill("#message", "Go.")
            page.press("#message", "Enter")
            page.wait_for_selector(".pulse")
            assert (page.evaluate("document.getAnimations().length") > 0) == moves
            page.keyboard.press("Escape")
            wait_for_end(page)
