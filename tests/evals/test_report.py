"""The page as a browser would find it: whole, self-contained, harmless, bilingual, and true to the
records.
"""

import base64
import hashlib
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from string import Formatter

import msgspec
import pytest
from tests.evals.synthetic_run import EVIL, MANIFEST, catalogue, records, write_lines, write_run

from groschen.errors import BadFile, BadRequest
from groschen.evals import report_data
from groschen.evals.comparison import compare
from groschen.evals.figures import round_ticks
from groschen.evals.report import write_report
from groschen.evals.report_data import read_run
from groschen.evals.report_examples import choose_examples
from groschen.evals.report_text import words_of
from groschen.prices import ENVIRONMENT_VARIABLE, load_prices

SOURCE = Path(report_data.__file__).parent
VOID = {"meta", "br", "input", "path", "circle", "line", "rect"}


class Page(HTMLParser):
    """Elements with their attributes, text without style and script, and what is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.raw: dict[str, str] = {"style": "", "script": ""}
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]] += data
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [name for _, attributes in self.elements if (name := attributes.get("id"))]


@pytest.fixture(autouse=True)
def shipped_prices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "no-prices.json"
    empty.write_text("{}")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(empty))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "countdown-7")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run folder that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "copy", symlinks=True))


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    english, german = catalogue("en"), catalogue("de")
    assert list(english) == list(german)

    def placeholders(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    assert [key for key in english if placeholders(english[key]) != placeholders(german[key])] == []


def test_every_sentence_that_the_code_asks_for_is_there_and_none_is_left_over() -> None:
    code = "\n".join(path.read_text() for path in sorted(SOURCE.glob("*.py")))
    exact = set(re.findall(r'"([a-z_]+\.[a-z0-9_]+)"', code))
    patterns = [
        re.sub(r"\\{[^}]*\\}", "[a-z0-9_-]+", re.escape(text))
        for text in re.findall(r'words\(\s*f"([^"]+)"', code)
    ]
    named = {f"limit.{key}{end}" for key in re.findall(r'"([a-z_]+)"', code) for end in ("", "_why")}
    asked_plainly = set(re.findall(r'words\(\s*"([a-z0-9_.]+)"', code))
    keys = set(catalogue("en"))
    assert asked_plainly - keys - {"key"} == set()
    limits = {f"limit.{key}" for key in re.findall(r'_limit\("([a-z_]+)"', code)}
    assert limits - keys == set()
    unused = [
        key
        for key in keys - exact - named - asked_plainly - {"yes", "no", "to"}
        if not any(re.fullmatch(pattern, key) for pattern in patterns)
    ]
    assert unused == []


def test_the_page_is_one_whole_document_in_both_languages(run: Path) -> None:
    page = page_of(run)
    assert page.faults == [] and page.open == []
    assert [each["lang"] for each in page.of("div") if "lang" in each] == ["en", "de"]
    assert [count for count in Counter(page.ids()).values() if count > 1] == []
    assert len(page.of("h1")) == 2 and len(page.of("main")) == 2


def test_every_link_and_label_leads_somewhere_in_the_page(run: Path) -> None:
    page = page_of(run)
    ids = set(page.ids())
    links = [str(link["href"]) for link in page.of("a")]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)
    labels = [name for _, each in page.elements for name in (each.get("aria-labelledby") or "").split()]
    labels += [str(each["for"]) for each in page.of("label")]
    assert labels and set(labels) <= ids


def test_nothing_is_fetched_from_anywhere_and_the_policy_allows_only_what_is_in_the_page(run: Path) -> None:
    page = page_of(run)
    assert [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "base")] == []
    assert [each for _, each in page.elements if {"src", "srcset", "style", "action"} & each.keys()] == []
    assert "url(" not in page.raw["style"] and "@import" not in page.raw["style"]
    (policy,) = (str(each["content"]) for each in page.of("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for kind, text in page.raw.items():
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_nothing_that_a_run_contains_becomes_markup(copy: Path) -> None:
    evil = EVIL.replace("\ud800", "")  # a file cannot hold a lone surrogate
    for name in ("base-test", "best-test"):
        path = copy / "evaluations" / f"{name}.jsonl"
        found = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        for each in found:
            each |= {"text": evil, "prompt": evil, "answer": evil}
        found[0]["error"] = evil
        write_lines(path, found)
    manifest = replace(
        MANIFEST, task=evil, model=evil, machine={evil: evil, "list": [evil]}, first_inexact=evil
    )
    (copy / "manifest.json").write_bytes(msgspec.json.encode(replace(manifest, exact=False)))
    (copy / "config.toml").write_text(f"# {evil}\n".replace("\x00", ""))
    with (copy / "metrics.jsonl").open("ab") as file:
        file.write(msgspec.json.encode({"kind": "event", "step": 3, "message": evil}) + b"\n")
    page = page_of(copy)
    assert page.faults == [] and len(page.of("script")) == 1
    assert {tag for tag, _ in page.elements} & {"img", "b", "alert"} == set()
    assert [key for _, each in page.elements for key in each if key.startswith("on")] == []
    assert '<script>alert("boo")</script>' in page.text  # to be read, as it was written
    assert "\u202e" not in page.text and "\x00" not in page.text and "\u27e8U+202E\u27e9" in page.text


def test_a_lone_surrogate_of_a_broken_decoder_can_be_written() -> None:
    from groschen.evals.markup import tag

    assert tag("p", EVIL, title=EVIL).encode("utf-8").count(b"U+D800") == 2


def test_the_numbers_of_the_page_are_those_of_the_records(run: Path) -> None:
    data = read_run(run)
    found = compare(data.records_of("base", "test"), data.records_of("best", "test"))
    page = page_of(run)
    for words in map(words_of, ("en", "de")):
        for text in (
            words.percent(found.base.pass_at_1.value),
            words.percent(found.trained.pass_at_1.value),
            words.points(found.paired.gain),
            words("to", low=words.points(found.paired.low), high=words.points(found.paired.high)),
        ):
            assert text in page.text
    assert "0.0." in page.text and words_of("en")("limit.truncated") in page.text


def test_each_figure_has_a_name_a_sentence_and_its_numbers(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == 2 * 8
    for figure in figures:
        assert re.search(r"<title [^>]*>\w", figure) and re.search(r"<desc [^>]*>\w", figure)
        assert re.search(r"<details>.*<table>.*<td>", figure, re.DOTALL)


def test_the_same_run_gives_the_same_bytes_and_replaces_the_old_page(copy: Path) -> None:
    first = write_report(copy).read_bytes()
    assert write_report(copy).read_bytes() == first
    assert [path.name for path in copy.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name", ["config.toml", "metrics.jsonl", "ledger.jsonl", "plan.json", "best",
             "evaluations/base-best-prompt-test.jsonl", "evaluations/base-test.jsonl",
             "evaluations/best-test.jsonl"]
)  # fmt: skip
def test_a_missing_file_is_left_out_with_a_word(copy: Path, name: str) -> None:
    (copy / name).unlink()
    page = page_of(copy)
    assert page.faults == []
    if "/" not in name:
        assert words_of("en")("origins.missing", files=name) in page.text


def test_a_run_that_has_only_begun_gets_an_honest_page(copy: Path) -> None:
    for path in list(copy.iterdir()):
        if path.name != "manifest.json":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    text = page_of(copy).text
    for words in map(words_of, ("en", "de")):
        assert (
            words("headline.none") in text
            and words("limit.no_evaluation") in text
            and words("cost.none") in text
        )


def test_a_base_whose_own_prompt_is_its_best_is_not_called_untried(copy: Path) -> None:
    (copy / "evaluations" / "base-best-prompt-test.jsonl").unlink()
    english = words_of("en")
    assert english("controls.no_prompt") in page_of(copy).text
    with (copy / "metrics.jsonl").open("ab") as file:
        for prompt in (-1, 0, 1):
            line = {
                "kind": "evaluation",
                "step": 0,
                "split": "dev",
                "model": "base-prompts",
                "prompt": prompt,
            }
            file.write(msgspec.json.encode(line) + b"\n")
    text = page_of(copy).text
    assert english("controls.own_prompt", tried="2") in text
    assert english("controls.no_prompt") not in text and english("limit.no_prompt") not in text


def test_without_a_test_split_the_page_warns_that_dev_flatters(copy: Path) -> None:
    for path in (copy / "evaluations").glob("*-test.jsonl"):
        path.unlink()
    text = page_of(copy).text
    assert words_of("en")("headline.dev") in text and words_of("de")("limit.dev") in text


def test_a_torn_last_line_is_no_reason_to_have_no_report(copy: Path) -> None:
    for name in ("metrics.jsonl", "ledger.jsonl", "evaluations/best-test.jsonl"):
        with (copy / name).open("ab") as file:
            file.write(b'{"kind": "st')
    assert page_of(copy).faults == []


def test_a_damaged_line_and_a_folder_that_is_no_run_are_refused(copy: Path, tmp_path: Path) -> None:
    path = copy / "evaluations" / "best-test.jsonl"
    path.write_bytes(b"not json\n" + path.read_bytes())
    with pytest.raises(BadFile, match=r"line 1 of .*best-test\.jsonl"):
        write_report(copy)
    with pytest.raises(BadFile, match="not a run folder"):
        write_report(tmp_path)


def test_evaluations_of_other_problems_are_not_compared(copy: Path) -> None:
    write_lines(copy / "evaluations" / "base-test.jsonl", records(1, 0.3, num_problems=299))
    with pytest.raises(BadRequest, match="countdown:0299"):
        write_report(copy)


def test_a_page_that_cannot_be_written_is_an_error_with_a_name(copy: Path) -> None:
    (copy / "report.html").unlink(missing_ok=True)
    (copy / "report.html").mkdir()
    with pytest.raises(BadFile, match=r"report\.html could not be written"):
        write_report(copy)


def test_prices_of_the_run_folder_count(copy: Path) -> None:
    shipped = load_prices()
    twice = msgspec.structs.replace(shipped.machine, value=1000 * shipped.machine.value)
    (copy / "prices.json").write_bytes(msgspec.json.encode({"machine": twice}))
    before = write_report(copy, shipped).read_bytes()
    assert write_report(copy).read_bytes() != before


def test_a_run_that_was_not_exact_says_so_and_one_that_was_does_not(run: Path, tmp_path: Path) -> None:
    inexact = page_of(write_run(tmp_path / "inexact", exact=False)).text
    english = words_of("en")
    assert english("limit.inexact") in inexact and english("limit.inexact") not in page_of(run).text
    some = english("exactness.some", steps="60", nonzero="30", largest=english.short(1e-4))
    assert some in inexact


def test_examples_are_of_both_kinds_spread_by_length_and_chosen_by_rule(run: Path) -> None:
    data = read_run(run)
    base, trained = data.records_of("base", "test"), data.records_of("best", "test")
    for gained in (True, False):
        chosen, total = choose_examples(base, trained, gained=gained)
        assert 0 < len(chosen) <= min(4, total)
        assert all(each.base.key == each.trained.key for each in chosen)
        assert all(each.base.passed != gained and each.trained.passed == gained for each in chosen)
        lengths = [each.trained.num_tokens for each in chosen]
        assert lengths == sorted(lengths)
        assert choose_examples(base[::-1], trained[::-1], gained=gained) == (chosen, total)
    chosen, total = choose_examples(base, trained, gained=True)
    assert total == compare(base, trained).solved.only_trained
    assert chosen[0].trained.num_tokens < chosen[-1].trained.num_tokens


def test_a_very_long_completion_says_how_much_is_left_out(copy: Path) -> None:
    path = copy / "evaluations" / "best-test.jsonl"
    found = [msgspec.json.decode(line) | {"text": "x" * 7_234} for line in path.read_bytes().splitlines()]
    write_lines(path, found)
    text = page_of(copy).text
    assert words_of("en")("examples.left_out", characters="1,234") in text
    assert words_of("de")("examples.left_out", characters="1.234") in text


def test_numbers_are_written_as_each_language_writes_them() -> None:
    english, german = words_of("en"), words_of("de")
    assert (english.percent(0.1234), german.percent(0.1234)) == ("12.3\u202f%", "12,3\u202f%")
    assert (english.count(1234567), german.count(1234567)) == ("1,234,567", "1.234.567")
    assert (english.points(-0.0512), german.points(0.0512)) == ("\u22125.1", "+5,1")
    assert (english.short(3.2e14), german.short(0.01234)) == (
        "3.20\u202f\u00d7\u202f10\u00b9\u2074",
        "0,0123",
    )
    assert english.number(-0.04, 1) == "0.0"
    assert [english.duration(s) for s in (5.25, 61, 3600, 7384)] == [
        "5.2\u202fs", "1\u202fmin 01\u202fs", "1\u202fh 00\u202fmin", "2\u202fh 03\u202fmin"]  # fmt: skip
    assert english.p_value(0.0001) == "<\u202f0.001" and german.p_value(0.0124) == "=\u202f0,012"
    assert english.moment("2026-11-22T14:05:00Z") == "2026-11-22 14:05 UTC"
    nothing = float("nan")
    assert {
        english.percent(None),
        english.number(nothing),
        english.short(nothing),
        english.duration(None),
    } == {"\u2013"}


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.3, 0.31), (-4, 17), (0, 123456), (5, 5), (0, 0), (1e-9, 3e-9)]
)
def test_ticks_are_few_round_and_cover_everything(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    steps = {round((after - before) / (ticks[1] - ticks[0]), 3) for before, after in pairwise(ticks)}
    assert steps == {1.0}


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_and_lines_stand_out_as_wcag_asks(scheme: str) -> None:
    style = (SOURCE / "page" / "report.css").read_text()
    blocks = {
        "light": style,
        "dark": style.split("prefers-color-scheme: dark")[1],
        "print": style.split("@media print")[1],
    }
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", blocks[scheme].split("}")[0]))

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(first: str, second: str) -> float:
        dark, light = sorted((luminance(colours[first]), luminance(colours[second])))
        return (light + 0.05) / (dark + 0.05)

    texts = ("ink", "muted", "look0", "look1", "look2", "look3", "good", "bad", "even")
    faint = [(t, under) for t in texts for under in ("paper", "card", "soft") if contrast(t, under) < 4.5]
    assert faint == []
