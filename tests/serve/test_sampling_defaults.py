"""What a generation_config.json says of drawing is taken as other engines take it, and said once."""

import logging

import pytest

from groschen.engine.sampling import check
from groschen.serve.served import _defaults


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({"temperature": 1e-6}, {"temperature": 0.0}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": -1.0}, {"temperature": 0.0}),
        ({"temperature": 1e9}, {"temperature": 100.0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 50.0}, {"top_k": 50}),
        ({"top_p": 0}, {"top_p": 1.0, "temperature": 0.0}),
        ({"top_p": 0, "temperature": 0.7}, {"top_p": 1.0, "temperature": 0.0}),
        ({"top_p": 1.5}, {"top_p": 1.0}),
        ({"min_p": -0.1}, {"min_p": 0.0}),
        ({"repetition_penalty": 0}, {"repetition_penalty": 0.01}),
        ({"temperature": 0.6, "top_k": 20, "top_p": 0.95}, {"temperature": 0.6, "top_k": 20, "top_p": 0.95}),
        (
            {"temperature": "hot", "top_k": None, "top_p": True},
            {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
        ),
    ],
)
def test_odd_settings_are_taken_as_what_they_come_to(
    said: dict[str, object], taken: dict[str, float]
) -> None:
    params = _defaults(said, 320)
    check(params, 320)
    assert {name: getattr(params, name) for name in taken} == taken


def test_what_is_taken_otherwise_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "groschen.serve"):
        _defaults({"temperature": 1e-6, "top_k": -1, "top_p": 0.9}, 320)
    assert [record.getMessage() for record in caplog.records] == [
        "generation_config.json has temperature 1e-06, which is taken as 0",
        "generation_config.json has top_k -1, which is taken as 0",
    ]
