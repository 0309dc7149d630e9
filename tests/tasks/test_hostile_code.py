"""Programs that are wrong and know how they are judged: none passes, none makes an error of its verdict."""

from textwrap import dedent

import pytest

from groschen.errors import Unsupported
from groschen.tasks.sandbox import find_sandbox
from groschen.tasks.unit_tests import Code
from verifier_samples import problem


@pytest.fixture(autouse=True)
def _needs_a_sandbox() -> None:
    try:
        find_sandbox()
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))


# A value that answers every question the way that suits it.
LIAR = """
class Liar:
    def __getattr__(self, name): return lambda *a, **k: True
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0.0
    __add__ = __radd__ = __rsub__ = __mul__ = __truediv__ = __abs__ = __round__ = __mod__ = __neg__ = __sub__
    def __bool__(self): return True
    def __len__(self): return 1
    def __getitem__(self, key): return self
    def __iter__(self): return iter([self])
    def __hash__(self): return 0
    def __int__(self): return 5
    def __float__(self): return 5.0
    def __instancecheck__(self, item): return True
"""
# The protocol as the program's process speaks it, sent on every descriptor.
SPEAK = """
import json, os
def message(letter, *lines):
    content = b''.join(json.dumps(line).encode() + b'\\n' for line in lines)
    return letter + (len(content).to_bytes(4, 'big') + content if content else b'') + bytes(4)
def speak(*messages):
    for descriptor in range(3, 40):
        try: os.write(descriptor, b''.join(messages))
        except OSError: pass
"""
PROGRAMS = {
    "a liar": LIAR + "def f(x): return Liar()\ng = h = f",
    "a list of liars": LIAR + "def f(x): return [Liar()]\ng = h = f",
    "a class that is a liar": LIAR + "class f(Liar):\n    def __init__(self, *x): pass\ng = h = f",
    "a list with its own opinion": """
        class Yes(list):
            def __eq__(self, other): return True
            def __iter__(self): return iter([5, 25])
            def __len__(self): return 2
            def __getitem__(self, key): return 25
        def f(x): return Yes()
        g = h = f
        """,
    "a table with its own opinion": """
        class Yes(dict):
            def __eq__(self, other): return True
            def __getitem__(self, key): return 25
            def items(self): return [(5, 25)]
            def __len__(self): return 1
        def f(x): return Yes()
        g = h = f
        """,
    "a tuple that calls itself named": """
        class Yes(tuple):
            _fields = ('__eq__', 'count')
            def __eq__(self, other): return True
        def f(x): return Yes((1, 2))
        g = h = f
        """,
    "fields that are code": """
        class Yes(tuple): _fields = ('x=__import__("os")._exit(0)',)
        def f(x): return Yes((1,))
        g = h = f
        """,
    "verdicts instead of answers": SPEAK
    + """
def f(x): speak(message(b'T', {'why': None, 'error': None}) * 9, message(b'D')); return 0
g = h = f
""",
    "verdicts at the start": SPEAK
    + """
speak(message(b'P', None), message(b'T', {'why': None, 'error': None}) * 9, message(b'D') * 9)
def f(x): return 0
g = h = f
""",
    "answers in advance": SPEAK
    + """
speak(message(b'P', None), message(b'V', {'changed': [], 'values': 1}, ['block', [25]]) * 50)
def f(x): return 0
g = h = f
""",
    "numbers that are not kept": SPEAK
    + """
def f(x):
    for kind in ('yours', 'handle', 'function', 'library', 'error'):
        speak(*[message(b'V', {'changed': [], 'values': 1}, [kind, n]) for n in (0, -1, 99)])
    return 0
g = h = f
""",
    "errors of the tests": SPEAK
    + """
def f(x):
    said = {'raised': 'AssertionError', 'kinds': [], 'arguments': [], 'text': '', 'number': 0, 'values': 0}
    speak(*[message(b'V', {**said, 'yours': n}) for n in (0, 1, 2)])
    return 0
g = h = f
""",
    "a change of what was not passed": SPEAK
    + """
def f(x): speak(message(b'V', {'changed': [0, 1, -1, 99], 'values': 5}, ['block', [25] * 5])); return 0
g = h = f
""",
    "questions of its own": SPEAK
    + """
def f(x):
    for what in ('call', 'name', 'attribute', 'item'):
        speak(*[message(b'V', {'do': what, 'of': n, 'named': [], 'name': 'f', 'values': 0}) for n in (0, 1)])
    return 0
g = h = f
""",
    "half a message": SPEAK
    + "def f(x): speak(b'V' + (100).to_bytes(4, 'big') + b'half'); os._exit(0)\ng = h = f",
    "a message without end": """
        import os
        def f(x):
            while True:
                for descriptor in range(3, 40):
                    try: os.write(descriptor, b'V' + (1 << 20).to_bytes(4, 'big') + b'[' * (1 << 20))
                    except OSError: pass
        g = h = f
        """,
    "letters that nobody knows": SPEAK + "def f(x): speak(message(b'X') * 100); return 0\ng = h = f",
    "colliding numbers": "M = 2 ** 61 - 1\ndef f(x): return {i * M: i for i in range(40_000)}\ng = h = f",
    "deep and wide": """
        def f(x):
            deep = [1, 2]
            for _ in range(200_000): deep = [deep, 1]
            return deep
        g = h = f
        """,
    "a value larger than memory allows": """
        class Endless(list):
            def __len__(self): return 10 ** 12
        def f(x): return [[]] * 20_000_000
        g = h = f
        """,
    "an iterator without end": "import itertools\ndef f(x): return itertools.repeat(25)\ng = h = f",
    "an answer that never ends to be written": """
        class Text(str):
            def __str__(self): return 'x' * (1 << 28)
        def f(x): return [Text('x' * (1 << 20))] * 400
        g = h = f
        """,
    "an end in the middle": "import os\ndef f(x): os._exit(0)\ng = h = f",
    "no memory left": "def f(x): return bytearray(1 << 40)\ng = h = f",
    "no stack left": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)\ng = h = f",
    "an error with a name of the tests": """
        class NotHanded(BaseException): pass
        class Gone(BaseException): pass
        def f(x): raise (Gone if x == 5 else NotHanded)('x')
        g = h = f
        """,
    "an error that is a liar": LIAR + "class E(Liar, Exception): pass\ndef f(x): raise E()\ng = h = f",
    "an error whose words end the process": """
        import os
        class E(Exception):
            def __str__(self): os._exit(0)
        def f(x): raise E()
        g = h = f
        """,
    "the function of the tests for its own end": """
        def f(x): return 0
        def g(call):
            try: call(type, 5)
            except BaseException: pass
            for words in ((), (5, 5, 5), (None,), (g,), ([],)):
                try: call(*words)
                except BaseException: pass
            return 0
        def h(call): return call
        """,
    "frames above the function of the tests": """
        import sys, gc
        def f(x): return 0
        def g(call):
            cells = [cell.cell_contents for cell in call.__closure__]
            for thing in [*gc.get_objects(), *vars(call).values(), *cells]:
                if thing == 25: return thing
            return [getattr(call, name, 0) for name in ('__globals__', '__code__', '__defaults__')] and 0
        h = g
        """,
    "an exit at the start": "raise SystemExit(0)",
    "an error at the start": "def f(x): return x * x\ng = h = f\nraise ValueError",
    "patched modules": """
        import builtins, json, sys, io, os
        json.dumps = lambda *a, **k: '["block", [25]]'
        json.loads = lambda *a, **k: {'values': 0, 'do': 'name', 'name': 'f'}
        for name in list(sys.modules):
            module = sys.modules[name]
            for key in list(vars(module)) if name.startswith('groschen') else ():
                if callable(vars(module)[key]): setattr(module, key, lambda *a, **k: [25])
        def f(x): return 0
        g = h = f
        """,
    "patched builtins": """
        import builtins
        for name in ('isinstance', 'len', 'type', 'iter', 'getattr', 'hex', 'list', 'dict', 'str'):
            setattr(builtins, name, lambda *a: 25)
        def f(x): return 0
        g = h = f
        """,
}
# Each asks for a square; every program above gets it wrong for all three.
TESTS = {
    "equal": "assert f(5) == 25",
    "not unequal": "assert not f(5) != 25",
    "near": "assert abs(f(5) - 25) < 1e-9",
    "in": "assert 25 in f(5) and f(5) in [25] and f(5) in {25: 1}",
    "item": "assert f(5)[0] == 25 and 25 == f(5)[-1]",
    "less": "assert 24 < f(5) < 26",
    "list": "assert list(f(5)) == [25] or sorted(f(5)) == [25]",
    "int": "assert int(f(5)) == 25 and float(f(5)) == 25.0",
    "instance": "assert isinstance(f(5), int) and f(5) * 1 == 25",
    "text": "assert str(f(5)) == '25' or f'{f(5)}' == '25' or repr(f(5)) == '25'",
    "a function": "x = []\nassert g(lambda n: x.append(n) or 25) == 25 and x == [5]",
    "a function back": "assert h(lambda n: n)(5) == 25",
}


@pytest.mark.parametrize("what", list(PROGRAMS))
def test_no_program_passes_or_errs_its_way_out(what: str) -> None:
    verifier = Code(seconds=2, partial=True)
    tests = list(TESTS.values())
    verdict = verifier(problem({"tests": tests}), f"```python\n{dedent(PROGRAMS[what])}\n```")
    assert verdict.error is None and not verdict.passed and verdict.reward == 0.0, verdict


def test_an_honest_program_passes_what_can_be_passed() -> None:
    code = "def f(x): return x * x\ndef g(call): return call(5)\ndef h(call): return lambda n: n * n"
    verdict = Code(seconds=30, partial=True)(
        problem({"tests": list(TESTS.values())}), f"```python\n{code}\n```"
    )
    assert verdict.reward == 9 / 12, verdict  # the three others ask for a list


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "os.closerange(0, 64)"])
def test_an_end_of_the_tests_that_the_program_brings_about_is_its_failure(end: str) -> None:
    tests = {"tests": f"import os\nif f(5) != 25: {end}"}
    right, wrong = (
        Code(seconds=20)(problem(tests), f"```python\ndef f(x): return {n}\n```") for n in (25, 24)
    )
    assert right.passed
    assert wrong.error is None and not wrong.passed and "with this program" in str(wrong.parts["why"])


def test_an_end_of_the_tests_by_themselves_is_an_error() -> None:
    verdict = Code(seconds=20)(
        problem({"tests": "import os\nos._exit(1)"}), "```python\ndef f(x): return 24\n```"
    )
    assert "without the program too" in str(verdict.error)
