"""A template is foreign code: it ends, it stays small, and it does not reach Python."""

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from groschen.errors import BadRequest, Unsupported
from groschen.text.chat import ChatTemplate

QUESTION: list[dict[str, object]] = [{"role": "user", "content": "hello"}]
TOO_MUCH = "was stopped|failed|nested too deeply|can't be compiled"


def grown(start: str, step: str, end: str = "") -> str:
    """A value that is replaced by `step`, 99 times."""
    loop = "{% for i in range(99) %}{% set n.s = " + step + " %}{% endfor %}"
    return "{% set n = namespace(s=" + start + ") %}" + loop + end


OFTEN = "{% for i in range(99999) %}"
END = "{% endfor %}"
TEXT = "{% set s = 'x' * 99999 %}"
LARGE = "{% set a = [0] * 400000 %}{% set b = [a] * 1000 %}"
HOSTILE = {
    "nested loops": OFTEN + OFTEN + END + END,
    "nested loops over one list": "{% set r = range(99999) | list %}"
    "{% for a in r %}{% for b in r %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}",
    "loops with a filter": OFTEN + OFTEN + END + END,
    "endless output": OFTEN + "{{ 'x' * 99999 }}" + END,
    "huge repeat": "{{ 'x' * 10000000000 }}",
    "huge repeat of a list": "{{ [0] * 10000000000 }}",
    "huge power": "{{ 10 ** 1000000000 }}",
    "tower of powers": "{{ 9 ** 9 ** 9 ** 9 }}",
    "growing number": grown("3", "n.s * n.s"),
    "doubling with ~": grown("'x'", "n.s ~ n.s"),
    "doubling with +": grown("'x'", "n.s + n.s"),
    "doubling with format": grown("'x'", "'{0}{0}'.format(n.s)"),
    "doubling with %": grown("'x'", "'%s%s' % (n.s, n.s)"),
    "doubling with join": grown("'x'", "[n.s, n.s] | join"),
    "doubling with ''.join": grown("'x'", "''.join([n.s, n.s])"),
    "doubling with replace": grown("'x'", "n.s.replace('x', 'xx')"),
    "doubling with a filter": grown("'x'", "n.s | replace('x', 'xx')"),
    "doubling a list": grown("[1]", "n.s + n.s"),
    "nested lists": grown("[1]", "[n.s, n.s]", "{{ n.s }}"),
    "nested tuples": grown("(1,)", "(n.s, n.s)", "{{ n.s | tojson }}"),
    "nested objects": grown("{}", "{'a': n.s, 'b': n.s}", "{{ n.s == 1 }}"),
    "nested by dict()": grown("{}", "dict(a=n.s, b=n.s)", "{{ n.s }}"),
    "many large parts": "{% set s = 'x' * 999999 %}{% set x %}" + OFTEN + "{{ s }}" + END + "{% endset %}",
    "list of large texts": "{% set s = 'x' * 999999 %}{{ [s] * 999999 }}",
    "compared large lists": "{% set a = ['x' * 999999] * 99 %}{% set b = ['x' * 999998 + 'x'] * 99 %}"
    + OFTEN
    + "{% if a == b %}{% endif %}"
    + END,
    "searched large text": "{% set s = 'x' * 999999 %}" + OFTEN + "{% if 'y' in s %}{% endif %}" + END,
    "lazy filters": "{% set r = range(99999) %}" + OFTEN + "{{ r | select('none') | first }}" + END,
    "sorted again and again": "{% set r = range(99999) | list %}" + OFTEN + "{% set x = r | sort %}" + END,
    "sum of lists": "{% set x = ([[1] * 999] * 999) | sum(start=[]) %}",
    "wide indent": "{{ 'x\n\n\n' | indent(99999999) }}",
    "wide indent by a text": "{% set s = 'x' * 99999 %}{{ ('\n' * 99999) | indent(s) }}",
    "wide json": "{{ [1] | tojson(indent=99999999) }}",
    "wide format": "{{ '{:>9999999999}'.format(1) }}",
    "wide format from an argument": "{{ '{:>{}}'.format(1, 9999999999) }}",
    "wide %": "{{ '%9999999999d' % 1 }}",
    "wide % from an argument": "{{ '%*d' % (9999999999, 1) }}",
    "wide date": "{{ strftime_now('%9999999999d') }}",
    "wide center": "{{ 'x' | center(9999999999) }}",
    "wide ljust": "{{ 'x'.ljust(9999999999) }}",
    "bytes of a number": "{{ (1).to_bytes(9999999999, 'big') }}",
    "many slices": "{{ [1] | slice(9999999999) | list }}",
    "wide batch": "{{ [1] | batch(9999999999, 'x') | list }}",
    "split into characters": "{% set s = 'x ' * 499999 %}{% set s = s ~ s ~ s %}"
    + OFTEN
    + "{% set x = s.split() %}"
    + END,
    "macro that calls itself": "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "macro tree": "{% macro m(n) %}"
    "{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "loop that calls itself": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "constants while compiling": "{{ ('x' * 99999 * 99999) | upper }}{{ 2 ** 99999999999 }}",
    "escapes": grown("'<'", "n.s | string | e | string | replace('&', '&&')"),
    "deep parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "long source": "x" * 300_000,
    "namespace of a large list": LARGE + "{{ namespace(a=b) }}",
    "namespaces in a list": "{{ ([namespace(s='x' * 999999)] * 9999) | join(attribute='s') }}",
    "view of a large list": LARGE + "{{ dict(a=b).items() }}",
    "format of a name with an underscore": "{{ ('{_a}' * 20000).format(_a='x' * 1000000) }}",
    "format of what a namespace holds": "{{ ('{0.s}' * 20000).format(namespace(s='x' * 1000000)) }}",
    "copies by *": TEXT + OFTEN + "{% set x = s * 9 %}" + END,
    "copies by %": TEXT + OFTEN + "{% set x = '%s' % s %}" + END,
    "copies by slices": TEXT + OFTEN + "{% set x = s[1:] %}" + END,
    "lists of an iterator": LARGE + "{{ ([{'a': a}] * 1000) | map(attribute='a') | join }}",
    "searched iterator": "{% set a = ['x' * 999999] * 7 %}{% set b = ['x' * 999998 + 'x'] * 7 %}"
    "{% if a in (([b] * 99) | map('default')) %}{% endif %}",
    "changes of a large list": "{% set a = ['x' * 999999] * 99 %}{% set b = ['x' * 999998 + 'x'] * 99 %}"
    "{% for i in range(99) %}{% if loop.changed(a if i % 2 else b) %}{% endif %}{% endfor %}",
    "counted large lists": LARGE + "{% set c = [0] * 400000 %}{{ b.count(c) }}",
    "recursive loop over long lists": "{% for i in range(99) %}{% for x in [range(99999)] recursive %}"
    "{% if x is iterable %}{{ loop(x) }}{% endif %}{% endfor %}{% endfor %}",
    "test within a filter": LARGE + "{{ range(1, 99) | select('in', a) | list }}",
    "test that writes a large list": LARGE + "{{ b is lower }}",
    "filter that writes a large list": LARGE + "{{ b | upper }}",
    "argument that is a large list": LARGE + "{{ [1, 2] | join(b) }}",
    "huge number in letters": "{% set x = ('f' * 999999) | int(0, 16) %}",
    "sets of many keys": "{% set d = dict.fromkeys(range(99999)) %}"
    "{% for i in range(99) %}{% set x = d.keys() - [] %}{% endfor %}",
    "keys of large tuples": "{% set t = ((0,) * 400000,) * 1000 %}{{ {}[t] }}",
    "wide separators in json": "{{ ([1] * 99999) | tojson(separators=('x' * 99999, ':')) }}",
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """One gigabyte more than now, for what may run astray."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1_000_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("title", HOSTILE)
@pytest.mark.usefixtures("little_memory")
def test_hostile_template_is_stopped_soon(title: str) -> None:
    start = time.monotonic()
    with pytest.raises((Unsupported, BadRequest), match=TOO_MUCH):
        ChatTemplate(HOSTILE[title]).render(QUESTION)
    assert time.monotonic() - start < 20  # 1 to 4 seconds of a core for those that use their whole budget


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ (messages | attr('__class__')).__name__ }}",
        "{{ range.__globals__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(range) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ self._TemplateReference__context }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ messages[0].pop('role') }}",
        "{{ ''.encode() }}",
        "{% set n = namespace() %}{% set n['__class__'] = 1 %}",
        "{{ namespace(__class__=1) }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
    ],
)
def test_template_does_not_reach_python(source: str) -> None:
    """It is refused, or it gets nothing."""
    try:
        text = ChatTemplate(source).render(QUESTION)
    except (Unsupported, BadRequest):
        return
    assert text == ""


def test_messages_are_not_changed_by_a_template() -> None:
    messages = [{"role": "user", "content": ["a"]}]
    with pytest.raises(Unsupported):
        ChatTemplate("{{ messages[0].content.append('b') }}").render(messages)
    assert messages == [{"role": "user", "content": ["a"]}]


def test_long_conversations_stay_far_below_the_limits() -> None:
    source = (
        "{% set n = namespace(seen=[]) %}{% for m in messages %}"
        "{% set n.seen = n.seen + messages[loop.index0:][:1] %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}{% endif %}"
        "{% if '</t>' in m.content %}{{ m.content.split('</t>')[-1] | trim }}"
        "{% else %}{{ m.content ~ '\n' }}{% endif %}"
        "{% endfor %}"
    )
    messages = [{"role": ("user", "assistant")[i % 2], "content": "word " * 600} for i in range(2000)]
    template = ChatTemplate(source)
    assert len(template.render(messages)) > 5_000_000
    assert template._sandbox.state.steps < 1_000_000


def test_the_budget_is_of_each_render_and_each_thread() -> None:
    template = ChatTemplate(
        "{% for i in range(20000) %}{% if i == messages[0].content %}{% endif %}{% endfor %}done"
    )
    for _ in range(30):
        assert template.render(QUESTION) == "done"
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(template.render(QUESTION))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["done"] * 4


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% set n = namespace(x=1, id=151643) %}{% set n.x = n.x + 1 %}{{ n.x }} {{ n.id }}", "2 151643"),
        ("{{ dict(a=1).items() | list }} {{ {'b': 2} | dictsort }}", "[('a', 1)] [('b', 2)]"),
        ("{{ 'a,b'.split(',') | join('-') }} {{ [3, 1, 2] | sort | map('string') | join }}", "a-b 123"),
        ("{{ '{}:{:,}'.format('k', 1234567) }} {{ '%05.1f' % 2.25 }}", "k:1,234,567 002.2"),
        ("{{ 'in 2024: {{}} {}'.format(1) }} {{ 'in 2024: 100%% %s' % 1 }}", "in 2024: {} 1 in 2024: 100% 1"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ 'é<' | tojson }} {{ {'a': [1]} | tojson(indent=1) }}", '"é<" {\n "a": [\n  1\n ]\n}'),
        ("{{ 'x' ~ 1 ~ none }}|{{ 'ab\nc' | indent(2, true) }}", "x1None|  ab\n  c"),
        ("{{ 7 // 2 }} {{ 2 ** 10 }} {{ 2 - 5 }} {{ messages[0]['content'][1:3] | upper }}", "3 1024 -3 EL"),
        ("{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{{ loop.last }}{% endfor %}", "x1True"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
        (
            "{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}"
            "{% endif %}{% endfor %}",
            "(1(2))3",
        ),
        (
            "{{ 'b' is in 'abc' }} {{ 2 is eq 2 }} {{ [1, 2, 3] | select('in', [1, 3]) | join }}",
            "True True 13",
        ),
        (
            "{{ '1' in ([1] | map('string')) }} {{ [1, 2, 3][1:][::-1] }} {{ namespace(a=1) }}",
            "True [3, 2] <Namespace>",
        ),
    ],
)
def test_what_honest_templates_use_works(source: str, text: str) -> None:
    assert ChatTemplate(source).render(QUESTION) == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "search",
    [
        "a.rfind(b)", "a.rindex(b)", "a.rsplit(b)", "a.rsplit(sep=b)", "a.rpartition(b)", "c.strip(d)",
        "c.lstrip(d)", "c.rstrip(d)", "c | trim(d)", "c | trim(chars=d)",
    ],
)  # fmt: skip
def test_a_search_by_the_product_of_two_lengths_is_charged_for_it(search: str) -> None:
    source = (
        "{% set a = 'a' * 400000 %}{% set b = 'b' ~ 'a' * 200000 %}{% set c = '\u0101' * 400000 %}"
        "{% set d = '\u0201' * 400000 ~ '\u0101' %}{% for i in range(100) %}{% set x = "
        + search
        + " %}{% endfor %}"
    )
    begun = time.process_time()
    with pytest.raises((Unsupported, BadRequest)):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])
    assert time.process_time() - begun < 5


def test_honest_searches_in_a_long_answer_are_within_the_budget() -> None:
    source = "{{ (m.content.rsplit('</think>')[-1]).lstrip('\n') | trim('\n ') | length }}".replace(
        "m.content", "messages[0].content"
    )
    answer = "<think>" + "word " * 400_000 + "</think>\n\n42"
    assert ChatTemplate(source).render([{"role": "user", "content": answer}]) == "2"
