"""Programs for the tests of unit tests: tricks that must fail, and honest shapes that must work."""

from textwrap import dedent

# Each is judged by tests that ask for add(1, 2) == 3 and then for add("a", "b") == "ab".
_TRICKS = {
    "it says that it passed": """
        print('passed'); print('{"done": true}'); print('{"test": 0, "why": null}')
        """,
    "it ends well": """
        import os
        def add(a, b): os._exit(0)
        """,
    "it exits": """
        import sys
        def add(a, b): sys.exit(0)
        """,
    "what it returns equals everything": """
        class Yes:
            def __eq__(self, other): return True
            __hash__ = None
        def add(a, b): return Yes()
        """,
    "a number that equals everything": """
        class Yes(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = int.__hash__
        def add(a, b): return Yes()
        """,
    "a text that equals everything": """
        class Yes(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        def add(a, b): return Yes('x')
        """,
    "it turns errors into nothing": """
        import builtins
        builtins.AssertionError = ZeroDivisionError
        AssertionError = type('A', (Exception,), {})
        def add(a, b): return 0
        """,
    "it writes to every descriptor": """
        import os
        line = b'{"done": true}\\n{"test": 0, "why": null}\\n{"done": true}\\n'
        def add(a, b):
            for descriptor in range(64):
                try: os.write(descriptor, line)
                except OSError: pass
            return 0
        """,
    "it answers before it is asked": """
        import os
        for descriptor in range(3, 20):
            lines = b'{"names": {"add": ["handle", 0]}}\\n' + b'{"value": true, "changed": []}\\n' * 9
            try: os.write(descriptor, lines)
            except OSError: pass
        def add(a, b): return 0
        """,
    "it looks for the tests in frames and memory": """
        import gc, sys
        def expected(value):
            if isinstance(value, str) and 'assert add(' in value and 'getframe' not in value:
                return eval(value.split('==')[1].split('\\n')[0])
        def add(a, b):
            frame, seen = sys._getframe(), gc.get_objects()
            while frame:
                seen += [*frame.f_locals.values(), *frame.f_globals.values()]
                frame = frame.f_back
            return next((found for found in map(expected, seen) if found is not None), None)
        """,
    "it raises what looks like success": "def add(a, b): raise SystemExit(0)",
    "it raises the end of the tests": """
        class Gone(BaseException): pass
        def add(a, b): raise Gone
        """,
    "it talks nonsense": """
        import os
        def add(a, b):
            for descriptor in range(3, 20):
                try: os.write(descriptor, b'[[[\\n')
                except OSError: pass
            return 0
        """,
    "it answers with what is no value": """
        import os
        def add(a, b):
            for descriptor in range(3, 20):
                try: os.write(descriptor, b'{"value": ["complex", {}], "changed": [[7, 7]]}\\n')
                except OSError: pass
            return 0
        """,
    "it answers too much": "def add(a, b): return 'x' * (2 << 20)",
    "it says that it has no names": """
        import os
        for descriptor in range(3, 20):
            try: os.write(descriptor, b'{"names": 5}\\n')
            except OSError: pass
        def add(a, b): return a + b
        """,
    "it never answers": """
        def add(a, b):
            while True: pass
        """,
    "it closes everything": "import os; os.closerange(0, 64)",
    "it kills its parent": """
        import os, signal
        def add(a, b): os.kill(os.getppid(), signal.SIGKILL); return 0
        """,
    "it returns a deep list": """
        deep = []
        for _ in range(900): deep = [deep]
        def add(a, b): return deep
        """,
    "it returns a cycle": """
        ring = []
        ring.append(ring)
        def add(a, b): return ring
        """,
}

# Each is judged by the standard output for an input that it could read.
_FORGED_OUTPUTS = {
    "it says that it passed": "print('passed'); import os; os._exit(0)",
    "it looks for what is expected": """
        import sys
        frame = sys._getframe()
        while frame:
            job = frame.f_locals.get('job')
            if job: print(job.get('expected') or job.get('outputs') or '')
            frame = frame.f_back
        """,
    "it answers for the harness": """
        import os
        for descriptor in range(3, 20):
            try: os.write(descriptor, b'{"output": "", "why": null}\\n')
            except OSError: pass
        """,
    "it has no output any more": "import sys; sys.stdout = None",
    "it closes everything": "import os, sys; sys.stdout.close(); os.closerange(0, 64)",
}

# Program and tests that also pass when they run in one process, one after the other.
_USEFUL = {
    "checks in a function": (
        "def f(x): return x * 2",
        """
        def check(candidate):
            assert candidate(2) == 4
        check(f)
        """,
    ),
    "tolerances": (
        "def f(x): return x / 3",
        "import math\nassert math.isclose(f(1), 1 / 3) and abs(f(3) - 1) < 1e-9",
    ),
    "a class": (
        """
        class Solution:
            def twice(self, n): return [n, n]
        """,
        "assert Solution().twice(3) == [3, 3]",
    ),
    "state": (
        """
        class Stack:
            def __init__(self): self.kept = []
            def push(self, value): self.kept.append(value)
            def pop(self): return self.kept.pop()
            def __len__(self): return len(self.kept)
            def __getitem__(self, index): return self.kept[index]
        """,
        """
        stack = Stack()
        stack.push(1)
        stack.push((2, 'a'))
        assert len(stack) == 2 and stack[0] == 1 and stack.kept == [1, (2, 'a')]
        assert stack.pop() == (2, 'a') and len(stack) == 1
        """,
    ),
    "types": (
        "def f(x): return x",
        """
        plain = (None, True, 0, -5, 10 ** 30, 1.5, -0.0, 'ü', b'b', (1, (2,)), [1, [2]])
        for value in (*plain, {1: 'a', (1, 2): {3}}, {1, 2}, frozenset([1]), 2j, float('inf')):
            assert f(value) == value and type(f(value)) is type(value) and str(f(value)) == str(value)
        """,
    ),
    "exceptions": (
        """
        def f(x):
            if x < 0: raise ValueError('negative')
        """,
        """
        try:
            f(-1)
        except ValueError as error:
            assert 'negative' in str(error)
        else:
            assert False
        """,
    ),
    "a generator": ("def f(n): yield from range(n)", "assert list(f(3)) == [0, 1, 2] and sum(f(4)) == 6"),
    "changes in place": (
        """
        def f(x): x.sort()
        def g(x): x['new'] = 1
        """,
        """
        numbers, table = [3, 1, 2], {}
        assert f(numbers) is None and g(table) is None
        assert numbers == [1, 2, 3] and table == {'new': 1}
        """,
    ),
    "constants": ("LIMIT = 5\nNAMES = ('a', 'b')", "assert LIMIT == 5 and NAMES[1] == 'b'"),
    "subclasses of plain types": (
        """
        from collections import Counter, namedtuple
        Point = namedtuple('Point', 'x y')
        def f(): return Counter('aab')
        def g(): return Point(1, 2)
        """,
        "assert f() == {'a': 2, 'b': 1} and g() == (1, 2)",
    ),
    "named arguments": ("def f(a, *, b=1): return a - b", "assert f(5, b=2) == 3 and f(a=1) == 0"),
    "functions of functions": ("def f(n): return lambda x: x + n", "assert f(2)(3) == 5"),
    "a lot of output": (
        """
        import sys
        print('x' * 500_000, file=sys.stderr)
        def f():
            print('y' * 500_000)
            return 1
        """,
        "assert f() == 1",
    ),
}

TRICKS = {name: dedent(code) for name, code in _TRICKS.items()}
FORGED_OUTPUTS = {name: dedent(code) for name, code in _FORGED_OUTPUTS.items()}
USEFUL = {name: (dedent(code), dedent(tests)) for name, (code, tests) in _USEFUL.items()}
