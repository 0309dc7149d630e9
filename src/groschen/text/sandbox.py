"""The sandbox in which chat templates run: jinja2's immutable sandbox, with a budget of steps and of size.

A template comes with a model's files: it is foreign code that runs at every request. jinja2's sandbox keeps
it away from Python; this one also ends it. Every loop, call, filter, comparison, slice and concatenation is
charged for all that it walks through, so a template can't run for more than some seconds or build text beyond
MAX_CHARS.

Does not protect against: some hundred megabytes of memory for a moment, and what a template says to the
model. Nor does it know whether the text is a good prompt.

Filters and globals agree with what transformers 5 gives to a template (utils/chat_template_utils.py); filters
that no template needs and that can blow up (center, format, wordwrap, ...) do not exist here.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from groschen.text.sandbox_limits import (
    MAX_CHARS,
    MAX_ITEMS,
    MAX_NUMBER,
    MAX_SOURCE,
    MAX_STEPS,
    STEP_CHARS,
    STEP_COMPARISONS,
    TemplateLimit,
    require,
    require_short_replacement,
    require_small,
    size,
)
from groschen.text.sandbox_syntax import Charging, GenerationTag

_FILTERS = (
    "abs attr batch capitalize count default d dictsort e escape first float groupby indent int items join "
    "last length list lower map max min reject rejectattr replace reverse round safe select selectattr "
    "slice sort string sum title trim unique upper"
).split()
# These walk through everything below their argument, so they are charged for all of it.
_DEEP = frozenset(
    "dictsort e escape groupby join max min reject rejectattr safe select selectattr sort string sum "
    "unique".split()
)
_STRING_METHODS = frozenset(
    "strip lstrip rstrip split rsplit splitlines partition rpartition startswith endswith upper lower title "
    "capitalize casefold swapcase replace join find rfind index rindex count isdigit isalpha isalnum "
    "isspace isupper islower isnumeric "
    "isdecimal removeprefix removesuffix format".split()
)
# Python searches backwards, and for the characters of a set, in time by the product of both lengths.
_BY_PRODUCT = frozenset("rfind rindex rsplit rpartition strip lstrip rstrip".split())
_TEXTUAL = frozenset("capitalize indent lower replace title trim upper".split())  # write anything out first
_CHEAP = frozenset("attr count d default first last length items".split())  # never walk through a list
_WHOLE = frozenset("attr d default e escape safe string".split())  # take an iterator as the object it is
_DEEP_TESTS = frozenset(
    "eq equalto == ne != lt lessthan < le <= gt greaterthan > ge >= in lower upper".split()
)
_JINJA_ARGUMENTS = frozenset({"_loop_vars", "_block_vars"})  # added to a call by the compiled template


class TemplateRefusal(Exception):
    """A template called raise_exception: it does not accept these messages. The message is its own
    sentence.
    """


class _State(threading.local):
    """What one render in one thread has used, and which characters mark assistant text in it."""

    steps = 0
    span_marks: tuple[str, str] | None = None


class Sandbox(ImmutableSandboxedEnvironment):
    """A jinja2 environment for one template."""

    intercepted_binops = frozenset({"*", "**", "+", "-", "%"})

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # else constants are folded while compiling, before any limit counts
            extensions=[GenerationTag, loopcontrols],
            finalize=self._as_text,
        )
        self.state = _State()
        self.clock = clock
        self.filters = {name: self._limited(name, self.filters[name]) for name in _FILTERS}
        self.filters["tojson"] = self._tojson
        self.tests |= {name: self._limited_test(name, self.tests[name]) for name in _DEEP_TESTS}
        self.globals = {
            "range": self.globals["range"],  # jinja2's own: at most 100,000 numbers
            "cycler": self.globals["cycler"],
            "joiner": self.globals["joiner"],
            "dict": _Dict(),
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": self._strftime_now,
        }

    def compile_template(self, source: str) -> jinja2.Template:
        """A template that charges this sandbox. TemplateLimit if the source is too long, jinja2's errors
        if it is wrong.
        """
        if len(source) > MAX_SOURCE:
            raise TemplateLimit(f"has {len(source)} characters, at most {MAX_SOURCE} are compiled")
        self.state.steps = 0  # jinja2 tries constant filters while it compiles
        return self.from_string(source)

    def render(self, template: jinja2.Template, variables: dict[str, object]) -> str:
        """The text; TemplateLimit when the budget of this one render is used up."""
        self.state.steps = 0
        parts, length = [], 0
        for part in template.generate(variables):
            length += len(part)
            require(length <= MAX_CHARS, f"writes more than {MAX_CHARS} characters")
            parts.append(part)
        return "".join(parts)

    # What the compiled template calls. `Any` because jinja2 hands over whatever the template holds.

    def charge(self, steps: int) -> None:
        """Take steps from the budget of this render."""
        self.state.steps += steps
        require(self.state.steps <= MAX_STEPS, f"takes more than {MAX_STEPS} steps")

    def charged(self, value: Any) -> Any:
        """The value itself, after its whole size was charged."""
        self.charge(1 + size(value) // STEP_CHARS)
        return value

    def searched(self, value: Any) -> Any:
        """What a value is searched in: as `charged`, an iterator as the list of its items."""
        return self.charged(list(self.charged_loop(value, 1)) if isinstance(value, Iterator) else value)

    def copied(self, value: Any) -> Any:
        """A slice itself, after it was charged."""
        self.charge(1 + (len(value) // STEP_CHARS if hasattr(value, "__len__") else 0))
        return value

    def charged_loop(self, items: Any, weight: int) -> Any:
        """The items of a loop, of which each costs `weight` steps."""
        if hasattr(items, "__len__"):
            self.charge(weight * len(items))
            return items
        if isinstance(items, Iterable):
            return self._charged_generator(items, weight)
        return items  # undefined or no iterable: jinja2 says so

    def joined(self, *values: Any) -> str:
        """What the operator ~ gives."""
        return self.concat([self._as_text(value) for value in values])

    def concat(self, parts: Iterable[str]) -> str:
        """The parts as one text; jinja2 calls this at the end of a macro or a set block."""
        parts = list(parts)
        length = sum(len(part) for part in parts)
        require(length <= MAX_CHARS, f"builds a text of more than {MAX_CHARS} characters")
        self.charge(1 + len(parts) + length // STEP_CHARS)
        return "".join(parts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Any call in a template."""
        if getattr(__obj, "__self__", None) is __self:
            return __obj(*args)  # put here by Charging
        __self.charge(8 + (len(args) + len(kwargs)) // 8 if isinstance(__obj, Macro) else 4)
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps str.format
        owner = getattr(method, "__self__", None)
        given = {name: value for name, value in kwargs.items() if name not in _JINJA_ARGUMENTS}
        if isinstance(__obj, LoopContext):  # a recursive loop with items of its own
            args = tuple(__self.charged_loop(value, 1) for value in args)
            kwargs |= {name: __self.charged_loop(value, 1) for name, value in given.items()}
        elif not isinstance(__obj, Macro):
            for value in (*args, *given.values(), owner if isinstance(owner, list | tuple) else None):
                __self.charged(value)
        if isinstance(owner, str):
            args = __self._checked_string_call(owner, method.__name__, args, given)
        elif isinstance(owner, int | float | bytes):
            raise SecurityError(f"the number method {method.__name__!r} is not available to chat templates")
        elif isinstance(owner, LoopContext):
            __self.charged(owner._last_changed_value)  # what changed() compares with
        return __self._checked(super().call(__context, __obj, *args, **kwargs))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Any subscript in a template but a slice. A tuple is walked through, as a key."""
        return super().getitem(obj, self.charged(argument) if isinstance(argument, tuple) else argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Any of the operators * ** + - % in a template."""
        numbers = [x for x in (left, right) if isinstance(x, int)]
        sized = [x for x in (left, right) if hasattr(x, "__len__")]
        length = 0  # of what it gives
        if operator == "**" or len(numbers) == 2:
            require(sum(x.bit_length() for x in numbers) <= 256, "computes with huge numbers")
            require(operator != "**" or abs(right) <= 64, "computes with huge numbers")
        elif operator == "-":
            require(not any(isinstance(x, Set) for x in sized), "computes with sets")
        elif operator == "*" and numbers and sized:
            length = len(sized[0]) * max(numbers[0], 0)
            require(length <= MAX_ITEMS, "repeats a text or a list too often")
        elif operator == "%" and isinstance(left, str):
            require(not re.search(r"%[^a-zA-Z%]*(\*|\d{4})", left), "formats with a huge width")
            length = len(left) + max(left.count("%"), 1) * size(right)
            require(length <= MAX_CHARS, "builds a huge text")
        elif len(sized) == 2:
            length = len(left) + len(right)
            require(
                length <= (MAX_CHARS if isinstance(left, str) else MAX_ITEMS), "builds a huge text or list"
            )
        self.charge(1 + length // STEP_CHARS)
        result = super().call_binop(context, operator, left, right)
        return self.charged(result) if isinstance(result, tuple) else result  # as a key, it is walked through

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(Charging().visit(source), *args, **kwargs)

    def _charged_generator(self, items: Iterable[Any], weight: int) -> Iterator[Any]:
        for item in items:
            self.charge(weight)
            yield item

    def _as_text(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        self.charge(1 + size(value) // STEP_CHARS)
        return str(value)

    def _checked(self, value: Any) -> Any:
        if isinstance(value, str):
            require(len(value) <= MAX_CHARS, f"builds a text of more than {MAX_CHARS} characters")
            self.charge(len(value) // STEP_CHARS)
        elif isinstance(value, list | tuple | dict):
            require(len(value) <= MAX_ITEMS, f"builds a list of more than {MAX_ITEMS} items")
            self.charge(len(value))
        return value

    def _checked_string_call(
        self, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        if name not in _STRING_METHODS:
            raise SecurityError(f"the string method {name!r} is not available to chat templates")
        self.charge(len(text) // STEP_CHARS)
        if name in _BY_PRODUCT:
            self._charge_product(text, (*args, *kwargs.values()))
        if name in ("split", "rsplit", "splitlines"):
            pieces = text.count(args[0]) if args and isinstance(args[0], str) and args[0] else len(text) // 2
            require(pieces <= MAX_ITEMS, "splits a text into too many pieces")
        elif name == "join" and args:
            args = (list(self.charged_loop(args[0], 1)), *args[1:])
            require(size(args[0]) + len(text) * len(args[0]) <= MAX_CHARS, "joins a huge text")
        elif name == "replace":
            require_short_replacement(text, args)
        elif name == "format":
            plain = text.replace("{{", "").replace("}}", "")
            require(not re.search(r"\{[^{}]*(\d{4}|\{)", plain), "formats with a huge width")
            length = len(text) + text.count("{") * size([*args, *kwargs.values()])
            require(length <= MAX_CHARS, "builds a huge text")
        return args

    def _charge_product(self, text: str, settings: Iterable[Any]) -> None:
        """Charge for a search that compares each place of the text with each character of another one."""
        for setting in settings:
            if isinstance(setting, str):
                self.charge(len(text) * len(setting) // STEP_COMPARISONS)

    def _limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of jinja2 that is charged, with bounded arguments and a bounded result."""
        first = (
            1 if hasattr(function, "jinja_pass_arg") else 0
        )  # some take the environment or context before the value

        @wraps(function)  # also copies the attribute that tells jinja2 what to pass
        def filtered(*args: Any, **kwargs: Any) -> Any:
            value, rest = args[first], args[first + 1 :]
            if isinstance(value, Iterator) and name not in _WHOLE:
                value = self._charged_generator(value, 1)
                value = list(value) if name in _DEEP else value
            self._charge_filter(name, value, (*rest, *kwargs.values()))
            if name == "replace":
                require_short_replacement(str(value), rest)
            elif name in ("int", "float"):
                require(not isinstance(value, str) or len(value) <= 1000, "reads a huge number")
            elif name == "indent":
                width = next((x for x in (*rest, kwargs.get("width")) if isinstance(x, int | str)), 4)
                width = width if isinstance(width, int) else len(width)
                require(
                    len(str(value)) + width * (str(value).count("\n") + 1) <= MAX_CHARS, "indents a huge text"
                )
            elif name in ("list", "reverse", "batch", "slice") and isinstance(value, str):
                require(len(value) <= MAX_ITEMS, "splits a text into too many pieces")
            elif name == "join" and rest and hasattr(value, "__len__"):
                require(size(value) + len(str(rest[0])) * len(value) <= MAX_CHARS, "joins a huge text")
            elif name == "sum":
                start = kwargs.get("start", rest[1] if len(rest) > 1 else 0)
                require(isinstance(start, int | float), "adds up lists")  # in steps that grow with the square
            return self._checked(function(*args[:first], value, *rest, **kwargs))

        return filtered

    def _charge_filter(self, name: str, value: Any, settings: tuple[Any, ...]) -> None:
        self.charge(1)
        if name in _DEEP or name in _TEXTUAL:
            self.charge(size(value) // (8 if name in _DEEP else STEP_CHARS))
        if hasattr(value, "__len__") and name not in _CHEAP:
            self.charge(len(value) // (STEP_CHARS if isinstance(value, str) else 1))
        if name == "trim":
            self._charge_product(str(value), settings)
        for setting in settings:
            self.charge(size(setting) // STEP_CHARS)
        require_small(settings, limit=64 if name == "round" else MAX_NUMBER)

    def _limited_test(self, name: str, test: Any) -> Callable[..., Any]:
        """A test of jinja2 that walks through its arguments, charged for them."""
        charged = self.searched if name == "in" else self.charged

        def tested(*args: Any, **kwargs: Any) -> Any:
            return test(*map(charged, args), **{key: charged(value) for key, value in kwargs.items()})

        return tested

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        self.charge(1 + size(value) // 8)
        require_small((indent,), limit=64)
        require(size([indent, separators]) <= 256, "writes JSON with huge gaps")
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return str(self._checked(text))

    def _strftime_now(self, pattern: str) -> str:
        require(
            len(pattern) <= 200 and not re.search(r"%\W*\d", pattern), "asks for a date with a huge width"
        )
        return self.clock().strftime(pattern)


class _Dict:
    """`dict(...)` of a template, without the attributes of Python's class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace(...)` of a template, without names that begin with an underscore."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        for name in dict(*args, **kwargs):
            _check_name(name)
        super().__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # what it holds may be huge, and may be itself
        return "<Namespace>"


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(
            f"a namespace can't hold {name!r}: names that begin with an underscore are Python's"
        )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefusal(str(message)[:1000])
