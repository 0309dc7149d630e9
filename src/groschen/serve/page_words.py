"""The language of a page for one request, and the words of that language.

The sentences are in page/en.json and page/de.json, flat, with {placeholders}; the scripts of the chat page
read the same files. Which language: `?lang=`, else the cookie that the page's switch sets, else what the
browser accepts, else English.
"""

import json
from functools import cache

from starlette.requests import Request

from groschen.evals.report_text import LANGUAGES, Words
from groschen.serve.page_files import page_files

COOKIE = "groschen_language"


@cache
def words_of(language: str) -> Words:
    """The catalogue of a language of LANGUAGES."""
    return Words(language, json.loads(page_files().by_name[f"{language}.json"].body))


def language_of(request: Request) -> str:
    """The language of LANGUAGES that this request should be answered in."""
    for wanted in (request.query_params.get("lang"), request.cookies.get(COOKIE)):
        if wanted in LANGUAGES:
            return str(wanted)
    return accepted(request.headers.get("accept-language", ""))


def accepted(header: str) -> str:
    """The language of LANGUAGES that an Accept-Language header likes best; English when it names none."""
    liked: list[tuple[float, int, str]] = []
    for place, part in enumerate(header.split(",")):
        name, _, weight = part.strip().partition(";q=")
        language = name.split("-")[0].lower()
        if language in LANGUAGES:
            liked.append((-_weight(weight), place, language))
    best = min(liked, default=None)
    return LANGUAGES[0] if best is None or best[0] == 0 else best[2]


def _weight(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0
