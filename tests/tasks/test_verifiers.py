import tomllib

import pytest

from groschen.errors import BadRequest
from groschen.tasks import verifiers
from groschen.tasks.verifiers import KINDS, from_settings
from verifier_samples import assert_keeps_its_own_key, inside, problem


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"json"}))
def test_every_kind_is_made_without_settings(kind: str) -> None:
    assert type(from_settings(kind, {})) is KINDS[kind]


@pytest.mark.parametrize(
    ("kind", "toml", "expected"),
    [
        (
            "number",
            'locale = "de"\nunits = ["€", "Euro"]\nslot = "boxed"\nabsolute = 0.01',
            {"absolute": 0.01},
        ),
        ("number", "absolute = 1", {"absolute": 1.0}),
        ("choice", 'choices = ["yes", "no"]\nignore_case = false', {"choices": ("yes", "no")}),
        ("json", 'fields = ["a"]\nschema = {type = "object"}', {"schema": {"type": "object"}}),
        ("expression", 'seconds = 2.5\nlocale = "any"', {"seconds": 2.5}),
        ("code", "memory_mib = 256\npartial = true", {"memory_mib": 256}),
        ("pattern", "pattern = 'a+'", {"pattern": "a+"}),
    ],
)
def test_settings_of_a_toml_file_are_taken(kind: str, toml: str, expected: dict[str, object]) -> None:
    verifier = from_settings(kind, tomllib.loads(toml))
    for name, value in expected.items():
        assert getattr(verifier, name) == value


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("nummber", {}, "did you mean 'number'"),
        ("wieghted", {}, "did you mean 'weighted'"),
        ("qqq", {}, "known are 'exact', 'number'"),
        ("number", {"locales": "de"}, "no setting 'locales'; did you mean 'locale'"),
        ("number", {"zzz": 1}, "known are 'slot', 'format_reward'"),
        ("number", {"locale": "fr"}, "fr"),
        ("number", {"units": "km"}, "units"),
        ("number", {"absolute": "x"}, "absolute"),
        ("exact", {"slot": "bxoed"}, "bxoed"),
        ("code", {"limits": {}}, "no setting 'limits'"),
        ("code", {"seconds": 0}, "seconds"),
        ("json", {}, "anything would pass"),
        ("pattern", {"pattern": "("}, "no regular expression"),
        ("weighted", {}, "expected a table"),
        ("weighted", {"part": {}}, "did you mean 'parts'"),
        ("weighted", {"parts": {"a": {}}}, r"'a'.*with a kind"),
        ("weighted", {"parts": {"a": {"kind": "number", "weigth": 2}}}, "no setting 'weigth'"),
        ("weighted", {"parts": {"a": {"kind": "number", "weight": "2"}}}, "weight '2'"),
        ("weighted", {"parts": {"a": {"kind": "number", "required": False}}}, "at least one required"),
    ],
)
def test_what_is_not_known_is_refused_by_name(kind: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        from_settings(kind, settings)


def test_parts_with_weights_come_from_settings_too() -> None:
    settings = tomllib.loads(
        '[parts.value]\nkind = "number"\nweight = 0.75\n'
        '[parts.letters]\nkind = "exact"\nweight = 0.25\nrequired = false'
    )
    verifier = from_settings("weighted", settings)
    assert verifier(problem("5"), inside("5.0")).reward == 0.75
    assert verifier(problem("5"), inside("5")).reward == 1.0
    assert_keeps_its_own_key(from_settings("weighted", {"parts": {"a": {"kind": "number"}}}), problem(5))


def test_a_users_task_finds_what_it_needs_here() -> None:
    found = verifiers.last_number("I get 42.")
    assert [quantity.value for quantity in found] == [42]
    assert verifiers.Number(locale=verifiers.Locale.DE)(problem(1000), inside("1.000")).passed
    for name in verifiers.__all__:
        assert hasattr(verifiers, name)
