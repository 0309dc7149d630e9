"""The pages as they leave the server: their files, headers and languages, and `/glance`."""

import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from groschen.evals.report_text import LANGUAGES
from groschen.serve.page_files import KINDS, page_files
from groschen.serve.page_words import accepted, words_of
from groschen.tasks.countdown import prompt, solve
from serve.page_upstream import Upstream, app

PAGE = Path(__file__).parents[2] / "src" / "groschen" / "serve" / "page"
OWN = sorted(path for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".html"))
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def client(upstream: Upstream) -> TestClient:
    return TestClient(app(upstream), base_url="http://127.0.0.1:8000")


def catalogue(language: str) -> dict[str, str]:
    found = json.loads((PAGE / f"{language}.json").read_text())
    assert isinstance(found, dict)
    return found


# -- files


def test_every_vendored_file_is_the_one_that_is_written_down_with_its_licence() -> None:
    listed = json.loads((PAGE / "vendor" / "vendored.json").read_text())
    for row in listed:
        body = (PAGE / "vendor" / row["file"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == row["sha256"], row["file"]
        assert row["version"] in row["source"] and row["name"] in row["source"]
        assert row["licence"] and row["licence_files"]
        for name in row["licence_files"]:
            assert len((PAGE / "vendor" / name).read_text()) > 500
    known = {row["file"] for row in listed} | {name for row in listed for name in row["licence_files"]}
    there = {
        str(path.relative_to(PAGE / "vendor")) for path in (PAGE / "vendor").rglob("*") if path.is_file()
    }
    assert there == known | {"vendored.json"}


def test_every_file_of_the_page_can_be_served() -> None:
    there = {str(path.relative_to(PAGE)) for path in PAGE.rglob("*") if path.is_file()}
    assert set(page_files().by_name) == there
    assert {Path(name).suffix for name in there} <= set(KINDS)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_is_short_enough_to_be_read_at_once(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    assert [line for line in lines if len(line) > 120] == [] or path.suffix == ".html"


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_of_the_page_comes_from_elsewhere_or_is_written_inline(path: Path) -> None:
    text = path.read_text()
    addresses = [found for found in re.findall(r"https?://[^\s\"'`)]+", text) if "www.w3.org" not in found]
    assert addresses == []
    assert not re.search(r"\beval\(|new Function|innerHTML|dangerouslySetInnerHTML|\bon\w+=\"", text)
    assert not re.search(r"<style|\sstyle=\"|<script(?![^>]*\ssrc=)", text)


def test_a_file_under_its_digest_may_be_kept_for_ever_and_another_is_asked_for_again(
    client: TestClient,
) -> None:
    fixed = client.get(page_files().address("app.js"))
    assert fixed.status_code == 200
    assert fixed.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in fixed.headers["cache-control"]
    plain = client.get("/static/app.js")
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.content == fixed.content == (PAGE / "app.js").read_bytes()


@pytest.mark.parametrize("known", ["{tag}", 'W/{tag}, "other"', '"other", {tag}', "*"])
def test_what_a_browser_has_already_is_not_sent_again(client: TestClient, known: str) -> None:
    tag = client.get("/static/app.js").headers["etag"]
    again = client.get("/static/app.js", headers={"If-None-Match": known.format(tag=tag)})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/app.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["nothing.js", "..%2fpages.py", "vendor/..%2f..%2fpages.py", "0123456789abcdef/app.js", ""]
)
def test_nothing_but_the_files_of_the_page_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"


# -- the page


def test_the_page_is_served_under_a_policy_that_allows_nothing_foreign_and_nothing_inline(
    client: TestClient,
) -> None:
    answer = client.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for name in ("script-src", "style-src", "connect-src", "font-src", "form-action"):
        assert policy[name] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_every_address_in_the_page_is_one_that_is_served(client: TestClient) -> None:
    text = client.get("/").text
    assert "{{" not in text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(addresses) > 8
    for address in addresses:
        assert client.get(address).status_code == 200, address


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("en-GB,en;q=0.9,de;q=0.8", "en"),
        ("fr,de;q=0.3,en;q=0.2", "de"),
        ("fr", "en"),
        ("", "en"),
        ("de;q=0", "en"),
        ("DE-at", "de"),
        ("de;q=much, en;q=0.1", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_likes_best(header: str, language: str) -> None:
    assert accepted(header) == language


def test_a_question_beats_the_cookie_and_the_cookie_beats_the_browser(client: TestClient) -> None:
    german = {"Accept-Language": "de"}
    assert '<html lang="de"' in client.get("/", headers=german).text
    with_cookie = {**german, "Cookie": "groschen_language=en"}
    assert '<html lang="en"' in client.get("/", headers=with_cookie).text
    assert '<html lang="de"' in client.get("/?lang=de", headers=with_cookie).text
    assert '<html lang="de"' in client.get("/?lang=xx", headers=german).text
    assert "Accept-Language" in client.get("/").headers["vary"]


# -- words


def test_both_catalogues_have_the_same_keys_in_the_same_order_with_the_same_placeholders() -> None:
    one, other = (catalogue(language) for language in LANGUAGES)
    assert list(one) == list(other)
    for key in one:
        assert set(PLACEHOLDER.findall(one[key])) == set(PLACEHOLDER.findall(other[key])), key
        assert other[key].strip()


def test_every_word_that_is_asked_for_is_there_and_every_word_that_is_there_is_asked_for() -> None:
    sources = [path.read_text() for path in OWN]
    sources += [(PAGE.parent / name).read_text() for name in ("glance.py", "pages.py")]
    text = "\n".join(sources)
    known = {key.removesuffix(".one").removesuffix(".other") for key in catalogue("en")}
    asked = set(re.findall(r"""\b(?:t|words)\(\s*["']([a-z_.A-Z]+)["']""", text))
    asked |= set(re.findall(r"\{\{([a-z]+\.[a-z_]+)\}\}", text))
    assert asked - known == set()
    loose = [key for key in known if not re.search(rf"[\"'{{`]{re.escape(key)}[\"'}}`]", text)]
    beginnings = {f"{found}." for found in re.findall(r"""[`"'](\w+)\.(?:\$\{|\{)""", text)}
    assert [key for key in loose if not any(key.startswith(start) for start in beginnings)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_german_and_english_words_address_nobody(language: str) -> None:
    text = " ".join(value for key, value in catalogue(language).items() if not key.startswith("start."))
    text = re.sub(r"[.:?!;] Sie\b", "", text)  # at the start of a sentence it is "it" or "they"
    assert not re.search(r"\b(Sie|Ihre?n?|du|dein\w*|dich|dir|please|bitte)\b", text)


def test_the_examples_for_the_built_in_model_are_asked_as_its_task_asks_and_can_be_solved() -> None:
    text = (PAGE / "examples.js").read_text()
    puzzles = re.findall(r'\["(\d+)", "([\d, and]+)"\]', text)
    assert len(puzzles) == 4
    for target, listed in puzzles:
        numbers = [int(number) for number in re.findall(r"\d+", listed)]
        wording = prompt(numbers, int(target))
        assert wording.startswith(f"Make {target} from {listed}. ")
        assert int(target) in solve(tuple(sorted(numbers)))
    assert wording.partition(". ")[2] in text


# -- /glance


def glance(client: TestClient, path: str = "/glance", **headers: str) -> str:
    answer = client.get(path, headers={"Accept": "text/html", **headers})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


def test_at_a_glance_there_are_three_lines_without_scripts_in_less_than_ten_kilobytes(
    client: TestClient,
) -> None:
    text = glance(client)
    assert len(text.encode()) < 10_000
    assert re.findall(r'<p class="big">([^<]*)</p>', text) == [
        "Ready",
        "penny, teacher",
        "0 running \u00b7 0 waiting",
    ]
    assert "<script" not in text
    assert '<meta name="disabled-adaptations" content="watch">' in text
    preview = re.search(r'property="og:description" content="([^"]*)"', text)
    assert (
        preview is not None and preview[1] == "Ready \u00b7 penny, teacher \u00b7 0 running \u00b7 0 waiting"
    )


def test_a_terminal_gets_the_same_as_text(client: TestClient) -> None:
    answer = client.get("/glance", headers={"Accept": "*/*"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "Ready\npenny, teacher\n0 running \u00b7 0 waiting\n"
    german = client.get("/glance", headers={"Accept": "*/*", "Accept-Language": "de"})
    assert german.text == "Bereit\npenny, teacher\n0 laufen \u00b7 0 warten\n"


def test_the_glance_draws_itself_anew_until_it_is_held_still(client: TestClient) -> None:
    html = {"Accept": "text/html"}
    assert client.get("/glance", headers=html).headers["refresh"] == "10"
    assert "refresh" not in client.get("/glance?still", headers=html).headers
    assert "refresh" not in client.get("/glance?ask", headers=html).headers


def test_the_style_of_the_glance_is_allowed_by_its_hash_alone(client: TestClient) -> None:
    answer = client.get("/glance", headers={"Accept": "text/html"})
    policy = answer.headers["content-security-policy"]
    assert "script" not in policy and "unsafe" not in policy
    style = re.search(r"<style>(.*)</style>", answer.text)
    assert style is not None
    digest = hashlib.sha256(style[1].encode()).digest()
    assert f"style-src 'sha256-{b64encode(digest).decode()}'" in policy


def test_the_form_answers_one_question_and_shows_what_came_as_it_came(
    client: TestClient, upstream: Upstream
) -> None:
    upstream.answers.append("<b>15</b> & more")
    answer = client.post("/glance", data={"model": "teacher", "text": "What is 3*5?"})
    assert answer.status_code == 200
    assert "&lt;b&gt;15&lt;/b&gt; &amp; more" in answer.text
    assert "teacher answers" in answer.text
    (sent,) = upstream.bodies
    assert sent["model"] == "teacher"
    assert sent["messages"] == [{"role": "user", "content": "What is 3*5?"}]
    assert "<option selected>teacher</option>" in answer.text


def test_the_form_says_what_the_api_says_against_it(client: TestClient, upstream: Upstream) -> None:
    upstream.faults.append((404, {"message": "There is no model <x>."}, {}))
    answer = client.post("/glance", data={"model": "<x>", "text": "Hello"})
    assert answer.status_code == 404
    assert "There is no model &lt;x&gt;." in answer.text
    upstream.key = "secret"
    assert client.post("/glance", data={"model": "penny", "text": "Hello"}).status_code == 401
    with_key = {"Authorization": "Bearer secret"}
    asked = client.post("/glance", data={"model": "penny", "text": "Hello"}, headers=with_key)
    assert asked.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
    ],
)
def test_another_site_cannot_send_the_form(
    client: TestClient, upstream: Upstream, headers: dict[str, str]
) -> None:
    answer = client.post("/glance", data={"model": "penny", "text": "Hello"}, headers=headers)
    assert answer.status_code == 403
    assert upstream.bodies == []
    own = {"Origin": "http://127.0.0.1:8000"}
    assert client.post("/glance", data={"model": "penny", "text": "Hello"}, headers=own).status_code == 200


def test_a_form_that_is_empty_or_too_long_asks_no_model(client: TestClient, upstream: Upstream) -> None:
    assert client.post("/glance", data={"model": "penny", "text": "  "}).status_code == 400
    assert client.post("/glance", content=b"").status_code == 400
    assert client.post("/glance", data={"model": "penny", "text": "x" * 70_000}).status_code == 413
    assert upstream.bodies == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_of_a_server_has_its_word(language: str) -> None:
    words = words_of(language)
    assert len({words(f"glance.{state}") for state in ("loading", "ready", "draining", "dead")}) == 4
