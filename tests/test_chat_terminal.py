"""A conversation in the terminal, typed by a test: a real engine on a tiny model, its answers on
the screen.
"""

import io
import re

import pytest
from rich.console import Console
from tests.tiny import tiny_engine, tiny_model

from groschen import chat_terminal
from groschen.engine.open import Opened
from groschen.errors import Unsupported
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate

_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str, has_template: bool = True) -> str:
    """What the screen shows after these lines were typed."""
    engine = tiny_engine(tiny_model(max_position_embeddings=2048))
    template = ChatTemplate({"default": _TEMPLATE}, special_tokens={}) if has_template else None
    opened = Opened(engine, Text(tokenizer=engine.tokenizer, template=template))
    monkeypatch.setattr(chat_terminal, "open_engine", lambda model, weights: opened)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=False, width=200)
    chat_terminal.chat("tiny", console=console, lines=io.StringIO("".join(f"{line}\n" for line in lines)))
    return screen.getvalue()


def test_an_answer_is_shown_with_its_length_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = talk(monkeypatch, "/set max_tokens 12", "/set seed 5", "hello")
    assert "12 tokens (cut at max_tokens)" in shown
    assert "seed 5" in shown
    assert "prompt 22 tokens" in shown


def test_the_conversation_goes_on_and_its_prefix_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = talk(
        monkeypatch,
        "/set max_tokens 30",
        "/set seed 1",
        "a question that is longer than one block",
        "and another",
    )
    assert "of them cached" in shown


def test_the_same_seed_draws_the_same_answer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = talk(monkeypatch, "/set max_tokens 20", "/set seed 3", "hello", "/retry")
    first, again = re.findall(r"\n(.+)\n(\d+ tokens)", shown)  # the answer's last line and its length
    assert first == again


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/nonsense", "/nonsense is no command; /help lists them"),
        ("/set temperature hot", "temperature must be a number, found 'hot'"),
        ("/set colour 3", "/set needs one of temperature"),
        ("/retry", "there is no answer to draw again"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_talk_goes_on(
    monkeypatch: pytest.MonkeyPatch, line: str, sentence: str
) -> None:
    shown = talk(monkeypatch, line, "/set max_tokens 3", "hello")
    assert f"groschen: {sentence}" in shown
    assert re.search(r"\n[1-3] tokens?\b", shown)  # the answer; a random model may end it at once


def test_a_setting_out_of_range_is_refused_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = talk(monkeypatch, "/set top_p 7", "hello", "/set top_p 1", "/set max_tokens 2", "hello")
    assert "groschen: top_p must be a number from 0 to 1" in shown
    assert re.search(r"\n[12] tokens?\b", shown)


def test_a_model_without_a_template_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Unsupported, match="no chat template"):
        talk(monkeypatch, "hello", has_template=False)
