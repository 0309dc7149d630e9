"""One HTML file about one run: what was gained, what it cost, and what may not be concluded from it.

The page needs no network, no other file and no script to be read; it holds both languages, adapts to dark and
light, phone and paper. Nothing that a model, a task or a setting contains becomes markup (markup.py), and a
content security policy forbids whatever is not in this file. Leaves out statistics (stats.py, comparison.py).
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from groschen import __version__
from groschen.evals.markup import Html, join, tag, trusted
from groschen.evals.report_cost import cost, plan
from groschen.evals.report_curves import curves
from groschen.evals.report_data import read_run
from groschen.evals.report_examples import errors, examples
from groschen.evals.report_facts import exactness, limits, origins, settings
from groschen.evals.report_headline import controls, headline
from groschen.evals.report_results import Results, prices_of, results_of
from groschen.evals.report_text import LANGUAGES, Words, words_of
from groschen.model.atomic import replaced_file
from groschen.prices import Prices

REPORT = "report.html"
_SECTIONS = (headline, controls, curves, examples, errors, limits, cost, plan, exactness, settings, origins)
_NAMES = ("headline", "controls", "curves", "examples", "errors", "limits", "cost", "plan", "exactness",
          "settings", "origins")  # fmt: skip


def write_report(run_folder: Path, prices: Prices | None = None) -> Path:
    """Write RUN/report.html, in place of an older one, and return its path.

    prices: None takes prices.json of the run folder if there is one, laid over the user's or the shipped
    prices. Raises BadFile if it is no run folder, a file in it is damaged or the disk refuses; BadRequest if
    evaluations that are to be compared have different problems.
    """
    results = results_of(read_run(run_folder), prices or prices_of(run_folder))
    path = run_folder / REPORT
    with replaced_file(path) as file:
        file.write(render(results).encode("utf-8"))
    return path


def render(results: Results) -> str:
    """The whole page, ending with a line end."""
    style, script = _page_file("report.css"), _page_file("report.js")
    title = words_of("en")("page.title", task=results.run.manifest.task)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"groschen {__version__}"),
        tag("title", title),
        tag("style", trusted(style)),
    )
    pages = (_page(results, words_of(language)) for language in LANGUAGES)
    body = tag("body", _switch(), *pages, tag("script", trusted(script)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _page(results: Results, words: Words) -> Html:
    """Everything in one language."""
    sections = [
        (name, content)
        for name, make in zip(_NAMES, _SECTIONS, strict=True)
        if (content := make(results, words)) is not None
    ]
    manifest = results.run.manifest
    top = tag(
        "header",
        tag("p", words("page.kind"), class_="kind"),
        tag("h1", words("page.title", task=manifest.task)),
        tag(
            "p",
            words(
                "page.subtitle",
                model=manifest.model,
                created=words.moment(manifest.created),
                run=results.run.name,
            ),
        ),
        tag("nav", _contents([name for name, _ in sections], words), aria_label=words("page.contents")),
    )
    foot = tag("footer", tag("p", words("page.footer", version=__version__)))
    main = tag("main", *(content for _, content in sections))
    return tag("div", top, main, foot, lang=words.language, class_="page")


def _contents(names: list[str], words: Words) -> Html:
    links = (tag("a", words(f"{name}.title"), href=f"#{name}-{words.language}") for name in names)
    return tag("ul", *(tag("li", link) for link in links))


def _switch() -> Html:
    """Two radio buttons: the style sheet shows the page whose language is chosen, with or without a
    script.
    """
    choices = []
    for language in LANGUAGES:
        words = words_of(language)
        chosen = "" if language == LANGUAGES[0] else None
        button = tag(
            "input", type="radio", name="language", id=f"choose-{language}", value=language, checked=chosen
        )
        label = tag("label", words("page.language"), for_=f"choose-{language}", lang=language)
        choices.append(join([button, label]))
    name = "Language \u00b7 Sprache"
    return tag("nav", tag("fieldset", tag("legend", name), *choices, class_="switch"), aria_label=name)


def _policy(style: str, script: str) -> str:
    """Nothing from elsewhere, and only this very style and this very script."""
    return (
        f"default-src 'none'; style-src '{_hash_of(style)}'; script-src '{_hash_of(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def _page_file(name: str) -> str:
    return (files("groschen.evals") / "page" / name).read_text(encoding="utf-8")
