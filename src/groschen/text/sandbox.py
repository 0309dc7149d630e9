"""The sandbox in which chat templates run: jinja2's immutable sandbox, with a budget of steps and of size.

A template comes with a model's files: it is foreign code that runs at every request. jinja2's sandbox keeps
it away from Python; this one also ends it. Every loop, call, filter, comparison and concatenation is charged
before it is done, so a template can't run for more than some seconds or build text beyond MAX_CHARS.

Does not protect against: some hundred megabytes of memory for a moment, and what a template says to the
model. Nor does it know whether the text is a good prompt.

Filters and globals agree with what transformers 5 gives to a template (utils/chat_template_utils.py); filters
that no template needs and that can blow up (center, format, wordwrap, ...) do not exist here.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from groschen.text.sandbox_syntax import Charging, GenerationTag

MAX_STEPS = 2_000_000  # one to two microseconds each
MAX_CHARS = 8_000_000  # of a prompt, and of any text on the way to it: some two million tokens
MAX_ITEMS = 1_000_000  # of a list
MAX_SOURCE = 262_144  # characters of a template
_MAX_NUMBER = 100_000  # for arguments such as a width or a number of repeats
_STEP_CHARS = 128  # characters that are searched, copied or compared in at most a microsecond

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
_CHEAP = frozenset("attr count d default first last length items".split())  # never walk through a list


class TemplateLimit(Exception):
    """A template needed more steps or more room than any honest one does."""


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

    intercepted_binops = frozenset({"*", "**", "+", "%"})

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
            _require(length <= MAX_CHARS, f"writes more than {MAX_CHARS} characters")
            parts.append(part)
        return "".join(parts)

    # What the compiled template calls. `Any` because jinja2 hands over whatever the template holds.

    def charge(self, steps: int) -> None:
        """Take steps from the budget of this render."""
        self.state.steps += steps
        _require(self.state.steps <= MAX_STEPS, f"takes more than {MAX_STEPS} steps")

    def charged(self, value: Any) -> Any:
        """The value itself, after its whole size was charged."""
        self.charge(1 + _size(value) // _STEP_CHARS)
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
        _require(length <= MAX_CHARS, f"builds a text of more than {MAX_CHARS} characters")
        self.charge(1 + len(parts) + length // _STEP_CHARS)
        return "".join(parts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Any call in a template."""
        if getattr(__obj, "__self__", None) is __self:
            return __obj(*args)  # put here by Charging
        __self.charge(8 if isinstance(__obj, Macro) else 4)
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            args = __self._checked_string_call(owner, method.__name__, args, kwargs)
        elif isinstance(owner, int | float | bytes):
            raise SecurityError(f"the number method {method.__name__!r} is not available to chat templates")
        return __self._checked(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Any of the operators * ** + % in a template."""
        self.charge(1)
        numbers = [x for x in (left, right) if isinstance(x, int)]
        sized = [x for x in (left, right) if hasattr(x, "__len__")]
        if operator == "**" or len(numbers) == 2:
            _require(sum(x.bit_length() for x in numbers) <= 256, "computes with huge numbers")
            _require(operator != "**" or abs(right) <= 64, "computes with huge numbers")
        elif operator == "*" and numbers and sized:
            _require(len(sized[0]) * max(numbers[0], 0) <= MAX_ITEMS, "repeats a text or a list too often")
        elif operator == "%" and isinstance(left, str):
            _require(not re.search(r"%[^a-zA-Z%]*(\*|\d{4})", left), "formats with a huge width")
            _require(len(left) + left.count("%") * _size(right) <= MAX_CHARS, "builds a huge text")
        elif len(sized) == 2:
            limit = MAX_CHARS if isinstance(left, str) else MAX_ITEMS
            _require(len(left) + len(right) <= limit, "builds a huge text or list")
            self.charge((len(left) + len(right)) // _STEP_CHARS)
        return super().call_binop(context, operator, left, right)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(Charging().visit(source), *args, **kwargs)

    def _charged_generator(self, items: Iterable[Any], weight: int) -> Iterator[Any]:
        for item in items:
            self.charge(weight)
            yield item

    def _as_text(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        self.charge(1 + _size(value) // _STEP_CHARS)
        return str(value)

    def _checked(self, value: Any) -> Any:
        if isinstance(value, str):
            _require(len(value) <= MAX_CHARS, f"builds a text of more than {MAX_CHARS} characters")
            self.charge(len(value) // _STEP_CHARS)
        elif isinstance(value, list | tuple | dict):
            _require(len(value) <= MAX_ITEMS, f"builds a list of more than {MAX_ITEMS} items")
            self.charge(len(value))
        return value

    def _checked_string_call(
        self, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        if name not in _STRING_METHODS:
            raise SecurityError(f"the string method {name!r} is not available to chat templates")
        self.charge(len(text) // _STEP_CHARS)
        if name in ("split", "rsplit", "splitlines"):
            pieces = text.count(args[0]) if args and isinstance(args[0], str) and args[0] else len(text) // 2
            _require(pieces <= MAX_ITEMS, "splits a text into too many pieces")
        elif name == "join" and args:
            args = (list(args[0]), *args[1:])
            _require(_size(args[0]) + len(text) * len(args[0]) <= MAX_CHARS, "joins a huge text")
        elif name == "replace":
            _check_replace(text, args)
        elif name == "format":
            plain = text.replace("{{", "").replace("}}", "")
            _require(not re.search(r"\{[^{}]*(\d{4}|\{)", plain), "formats with a huge width")
            _require(
                len(text)
                + text.count("{")
                * _size([*args, *(kwargs[name] for name in kwargs if not name.startswith("_"))])
                <= MAX_CHARS,
                "builds a huge text",
            )
        return args

    def _limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of jinja2 that is charged, with bounded arguments and a bounded result."""
        first = (
            1 if hasattr(function, "jinja_pass_arg") else 0
        )  # some take the environment or context before the value

        @wraps(function)  # also copies the attribute that tells jinja2 what to pass
        def filtered(*args: Any, **kwargs: Any) -> Any:
            value, rest = args[first], args[first + 1 :]
            self.charge(1 + (_size(value) // 8 if name in _DEEP else 0))
            if hasattr(value, "__len__") and name not in _CHEAP:
                self.charge(len(value) // (_STEP_CHARS if isinstance(value, str) else 1))
            _check_numbers((*rest, *kwargs.values()))
            if name == "replace":
                _check_replace(str(value), rest)
            elif name == "indent":
                width = next((x for x in (*rest, kwargs.get("width")) if isinstance(x, int | str)), 4)
                width = width if isinstance(width, int) else len(width)
                _require(
                    len(str(value)) + width * (str(value).count("\n") + 1) <= MAX_CHARS, "indents a huge text"
                )
            elif name in ("list", "reverse", "batch", "slice") and isinstance(value, str):
                _require(len(value) <= MAX_ITEMS, "splits a text into too many pieces")
            elif name == "join" and rest and hasattr(value, "__len__"):
                _require(_size(value) + len(str(rest[0])) * len(value) <= MAX_CHARS, "joins a huge text")
            elif name == "sum":
                start = kwargs.get("start", rest[1] if len(rest) > 1 else 0)
                _require(
                    isinstance(start, int | float), "adds up lists"
                )  # in steps that grow with the square
            return self._checked(function(*args, **kwargs))

        return filtered

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        self.charge(1 + _size(value) // 8)
        _check_numbers((indent,), limit=64)
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return str(self._checked(text))

    def _strftime_now(self, pattern: str) -> str:
        _require(
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


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(
            f"a namespace can't hold {name!r}: names that begin with an underscore are Python's"
        )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefusal(str(message)[:1000])


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise TemplateLimit(what)


def _check_numbers(values: Iterable[Any], *, limit: int = _MAX_NUMBER) -> None:
    for value in values:
        _require(not isinstance(value, int) or abs(value) <= limit, "asks for a huge width or count")


def _check_replace(text: str, args: tuple[Any, ...]) -> None:
    if len(args) >= 2:
        found, put = str(args[0]), str(args[1])
        _require(len(text) + text.count(found) * len(put) <= MAX_CHARS, "replaces into a huge text")


def _size(value: Any) -> int:
    """Characters of a value with everything below it written out, however often it is shared; 16 more for
    each part.
    """
    waiting, size = [value], 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            size += len(item) + 16
        elif isinstance(item, dict):
            size += 16
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            size += 16
            waiting.extend(item)
        else:
            size += 16
        _require(size <= MAX_CHARS, f"handles more than {MAX_CHARS} characters at once")
    return size
