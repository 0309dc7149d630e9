"""Programs that are right and use what a harness easily leaves out, for the tests of unit tests."""

# Program and tests that also pass when they run in one process, one after the other.
TESTED = {
    "a sieve of a million": (
        """
        N = 10 ** 6
        sieve = bytearray([1]) * (N + 1)
        sieve[0] = sieve[1] = 0
        for i in range(2, 1001):
            if sieve[i]: sieve[i * i::i] = bytes(len(range(i * i, N + 1, i)))
        primes = [i for i in range(N + 1) if sieve[i]]
        is_prime = [bool(x) for x in sieve]
        def nth(n): return primes[n]
        """,
        "assert nth(5) == 13 and len(primes) == 78498 and is_prime[97] and not sieve[91]",
    ),
    "a table of 200,000 numbers": (
        """
        table = list(range(200_000))
        squares = {i: i * i for i in range(200_000)}
        def f(i): return table[i]
        """,
        "assert f(3) == 3 and table[-1] == 199_999 and squares[1999] == 1999 ** 2",
    ),
    "a global of 5,001 digits": (
        "BIG = 10 ** 5000\ndef f(): return BIG",
        "assert f() == 10 ** 5000 == BIG and f() > 9",
    ),
    "a global that holds itself": (
        "ring = []\nring.append(ring)\nme = {}\nme['me'] = me\ndef f(): return len(ring)",
        "assert f() == 1 and len(ring) == 1 and list(me) == ['me']",
    ),
    "a factorial of 2000": (
        "def f(n): return 1 if n == 0 else n * f(n - 1)\nimport sys; sys.setrecursionlimit(10_000)",
        "import math\nassert f(2000) == math.factorial(2000) and f(1500) // f(1499) == 1500",
    ),
    "300,000 numbers handed over": (
        "def f(numbers): return sum(numbers)\ndef g(numbers): return [n + 1 for n in numbers]",
        "data = list(range(300_000))\nassert f(data) == sum(data) and g(data) == list(range(1, 300_001))",
    ),
    "300,000 numbers sorted in place": (
        "def f(numbers): numbers.sort()",
        "data = list(range(300_000, 0, -1))\nf(data)\nassert data == list(range(1, 300_001))",
    ),
    "a guarded main that exits": (
        """
        import sys
        def add(a, b): return a + b
        def main(): print(add(1, 2)); return 0
        if __name__ == "__main__":
            sys.exit(main())
        """,
        "assert add(1, 2) == 3",
    ),
    "a guarded main that reads": (
        "def add(a, b): return a + b\nif __name__ == '__main__':\n    print(add(int(input()), int(input())))",
        "assert add(1, 2) == 3",
    ),
    "functions of the tests": (
        """
        def apply(f, *xs): return [f(x) for x in xs]
        def compose(*fs):
            def composed(x):
                for f in reversed(fs): x = f(x)
                return x
            return composed
        def memo(f):
            known = {}
            def inner(n):
                if n not in known: known[n] = f(n)
                return known[n]
            return inner
        def same(f): return f
        def safe(f, default):
            try: return f()
            except ZeroDivisionError: return default
        """,
        """
        assert apply(lambda x: x * 2, 1, 2, 3) == [2, 4, 6] and apply(len, 'a', 'bc') == [1, 2]
        assert apply(str.upper, 'a') == ['A'] and apply(int, '5', '6') == [5, 6]
        assert compose(lambda x: x + 1, lambda x: x * 2)(5) == 11 and compose()(7) == 7
        calls = []
        @memo
        def square(n):
            calls.append(n)
            return n * n
        assert square(4) == 16 and square(4) == 16 and calls == [4]
        kept = lambda: 5
        assert same(kept) is kept
        assert safe(lambda: 1 // 0, 'no') == 'no' and safe(lambda: 3, 0) == 3
        found = []
        apply(found.append, 1, 2)
        assert found == [1, 2]
        class Mine(Exception): pass
        def raises(): raise Mine('here', 7)
        try: safe(raises, 0)
        except Mine as error: assert error.args == ('here', 7)
        else: assert False
        def even(n): return n == 0 or apply(lambda m: not even(m), n - 1)[0]
        assert even(6) and not even(7)
        """,
    ),
    "exceptions of the program": (
        """
        class Broke(Exception):
            def __init__(self, name, amount):
                super().__init__(f'{name} lacks {amount}')
                self.amount = amount
        class Worse(Broke): pass
        class NotThere(KeyError): pass
        def f(n): raise (Broke, Worse)[n]('Ann', 5)
        def g(): raise KeyError('k')
        def h(): raise NotThere(5)
        def u(): b'\\xff'.decode('utf-8')
        """,
        """
        for n, kind in ((0, Broke), (1, Worse), (1, Broke), (1, Exception)):
            try: f(n)
            except kind as error: assert str(error) == 'Ann lacks 5' and error.amount == 5
        try: f(0)
        except Worse: assert False
        except Broke: pass
        try: g()
        except KeyError as error: assert str(error) == "'k'" and error.args == ('k',)
        try: h()
        except LookupError as error: assert error.args == (5,) and isinstance(error, NotThere)
        try: u()
        except UnicodeDecodeError: pass
        """,
    ),
    "values of the library": (
        """
        from fractions import Fraction
        from decimal import Decimal
        from collections import deque, namedtuple, OrderedDict, defaultdict, Counter
        from datetime import date, datetime, timedelta, time
        Point = namedtuple('Point', 'x y')
        def f(n): return [Fraction(n, 3), Decimal('0.10') * n, deque([n]), range(n), bytearray(b'a'), 2 ** 70]
        def d(): return [date(2024, 2, 29), datetime(2024, 1, 1, 12), timedelta(1, 5), time(3, 4)]
        def p(): return Point(1, 2)
        def s(x): return x
        """,
        """
        from collections import deque
        from datetime import date, datetime, timedelta, time
        from decimal import Decimal
        from fractions import Fraction
        assert f(3) == [1, Decimal('0.30'), deque([3]), range(3), bytearray(b'a'), 2 ** 70]
        assert f(2)[0] == Fraction(2, 3) and str(f(2)[1]) == '0.20'
        assert d() == [date(2024, 2, 29), datetime(2024, 1, 1, 12), timedelta(1, 5), time(3, 4)]
        assert p().x == 1 and p() == (1, 2) and repr(p()) == 'Point(x=1, y=2)'
        for value in (Fraction(1, 2), Decimal('1.0'), deque([1]), range(5), date(2024, 1, 1), p()):
            assert s(value) == value and type(s(value)).__name__ == type(value).__name__
        """,
    ),
    "objects": (
        """
        class Shape:
            def __init__(self, side): self.side = side
            def __repr__(self): return f'Shape({self.side})'
            def __len__(self): return self.side
            def __bool__(self): return self.side > 0
            def __enter__(self): self.side += 1; return self
            def __exit__(self, *error): self.side -= 1
        class Square(Shape):
            unit = 'cm'
            def __setitem__(self, key, value): self.kept = (key, value)
            def __delitem__(self, key): self.kept = None
            def __int__(self): return self.side
            def __float__(self): return float(self.side)
        def same(x): return x
        """,
        """
        square = Square(3)
        assert repr(square) == 'Shape(3)' == f'{square}' and isinstance(square, Shape) and len(square) == 3
        assert bool(Square(0)) is False and square
        assert issubclass(Square, Shape) and not issubclass(Shape, Square)
        square.side = 5
        square['a'] = 1
        assert square.side == 5 and square.kept == ('a', 1) and int(square) == 5 and float(square) == 5.0
        del square['a']
        assert square.kept is None and same(square) == square and Square.unit == 'cm'
        with square as entered: assert entered.side == 6
        assert square.side == 5 and not isinstance(5, Shape)
        """,
    ),
    "iterators": (
        """
        def naturals():
            n = 0
            while True:
                yield n
                n += 1
        class Countdown:
            def __init__(self, n): self.n = n
            def __iter__(self): return self
            def __next__(self):
                if self.n == 0: raise StopIteration
                self.n -= 1
                return self.n
        """,
        """
        from itertools import islice
        numbers = naturals()
        assert next(numbers) == 0 and next(numbers) == 1
        assert list(islice(naturals(), 1000)) == list(range(1000))
        assert list(Countdown(3)) == [2, 1, 0] and next(iter(Countdown(1))) == 0 and 2 in Countdown(3)
        assert next(Countdown(0), 'end') == 'end' and max(Countdown(5)) == 4
        for n in naturals():
            if n > 5: break
        assert n == 6
        """,
    ),
    "globals that change": (
        """
        count = 0
        log = []
        def step():
            global count
            count += 1
            log.append(count)
        BASE = {'a': [1]}
        """,
        """
        step(); step()
        assert count == 2 and log == [1, 2] and BASE['a'] == [1]
        def total(): return count + len(log)
        step()
        assert total() == 6 and globals()['count'] == 3 and 'log' in globals() and 'none' not in globals()
        """,
    ),
    "rows inside of rows": (
        "def clear(grid):\n    for row in grid: row[0] = 0\ndef fill(table): table['a'].append(1)",
        "row = [1, 2]\ngrid = [row, [3]]\nclear(grid)\nassert row == [0, 2] and grid == [[0, 2], [0]]\n"
        "inner = []\ntable = {'a': inner}\nfill(table=table)\nassert inner == [1]",
    ),
    "a deep value": (
        """
        def f(n):
            deep = ()
            for _ in range(n): deep = (deep,)
            return deep
        def depth(x):
            n = 0
            while x: x, n = x[0], n + 1
            return n
        """,
        "assert depth(f(50_000)) == 50_000",
    ),
    "dataclasses and types": (
        """
        from __future__ import annotations
        from dataclasses import dataclass, field, asdict
        from typing import NamedTuple, get_type_hints
        from enum import Enum, IntEnum
        @dataclass
        class Node:
            value: int
            children: list[Node] = field(default_factory=list)
        class Pair(NamedTuple):
            left: int
            right: int
        class Color(Enum): RED = 1
        class Level(IntEnum): LOW = 1
        def tree(): return asdict(Node(1, [Node(2)]))
        def hints(): return sorted(get_type_hints(Node))
        def color(): return Color.RED
        """,
        """
        assert tree() == {'value': 1, 'children': [{'value': 2, 'children': []}]}
        assert hints() == ['children', 'value']
        assert Pair(1, 2).right == 2 and color() == Color.RED and Level.LOW == 1 and color().name == 'RED'
        """,
    ),
    "as deep as Python lets": (
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)",
        "assert f(980) == 980",
    ),
    "exit after the definitions": ("def f(): return 1\nprint(f())\n", "assert f() == 1"),
}

# Programs with the input and the output that they have as `python program.py`.
RUN = {
    "exit()": ("print(int(input()) + 1)\nexit()", "1", "2"),
    "quit()": ("print(int(input()) + 1)\nquit()\nprint('never')", "1", "2"),
    "exit(0) in a function": ("def main():\n    print(5)\n    exit(0)\nmain()", "", "5"),
    "os._exit after a flush": ("import os\nprint(5, flush=True)\nos._exit(0)", "", "5"),
    "sys.exit(main())": (
        "import sys\ndef main():\n    print(5)\nif __name__ == '__main__': sys.exit(main())",
        "",
        "5",
    ),
    "a thread with a large stack": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
        "def main(): print(f(int(input())))\nthreading.Thread(target=main).start()",
        "20000",
        "20000",
    ),
    "atexit": ("import atexit\natexit.register(lambda: print('bye'))\nprint('hello')", "", "hello\nbye"),
    "its own standard output": (
        """
        import io, os, sys
        class Fast(io.IOBase):
            def __init__(self, file):
                self.descriptor, self.kept = file.fileno(), io.BytesIO()
                self.write = lambda text: self.kept.write(text.encode())
            def flush(self):
                os.write(self.descriptor, self.kept.getvalue())
                self.kept.truncate(0), self.kept.seek(0)
        sys.stdout = Fast(sys.stdout)
        print(5)
        """,
        "",
        "5",
    ),
    "sys.__stdout__": ("import sys\nsys.__stdout__.write(sys.__stdin__.readline())", "5", "5"),
    "two streams": ("import sys\nprint('no', file=sys.stderr)\nprint('yes')", "", "yes"),
    "its file": ("print(__file__.endswith('.py'), __name__)", "", "True __main__"),
    "its module": (
        "import __main__, sys\nx = 5\nprint(__main__.x, sys.modules['__main__'].x, len(sys.argv))",
        "",
        "5 5 1",
    ),
    "a pickle of its own class": (
        "import pickle\nclass A: pass\na = A()\na.x = 5\nprint(pickle.loads(pickle.dumps(a)).x)",
        "",
        "5",
    ),
    "a dataclass with names as texts": (
        """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class A:
            x: int
        print(A(5))
        """,
        "",
        "A(x=5)",
    ),
    "as deep as Python lets": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(990))", "", "990"),
    "lines with a carriage return": ("print(input() + 'b')", "a\r\n", "a\rb"),
    "all lines at once": ("import sys\nprint(len(sys.stdin.read().split()))", "1\n" * 200_000, "200000"),
    "a map of the input": (
        "import mmap\nprint(mmap.mmap(0, 0, prot=mmap.PROT_READ).readline())",
        "ab\n",
        r"b'ab\n'",
    ),
}
