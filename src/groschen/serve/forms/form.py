"""The forms: for each family its tags around reasoning, its markers of tool calls, and how a call is written.

A table, and the words for its columns. Leaves out which form a model has (`detect.py`).
"""

from dataclasses import dataclass
from typing import Literal

from groschen.serve.forms import families
from groschen.serve.forms.tagged import FUNCTION

Notation = Literal["json", "parameters", "keywords", "pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How calls are written: `begin`, then for each call `before` NAME `middle` ARGUMENTS `after` with
    `between` them, then `end`.

    notation: JSON text, `<parameter=key>` tags, `key=value` or `key:value`. mark: what stands around a string
    in the last one.
    """

    before: str
    middle: str
    after: str
    between: str = "\n"
    begin: str = ""
    end: str = ""
    notation: Notation = "json"
    mark: str = '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a model's text looks like.

    reasoning_open, reasoning_close: the tags around what it thinks; "" where it has none. openers: markers
    that begin calls. is_bare: a JSON object at the very start of the answer is how calls are written.
    reads_bare: it is no such form, and such an object, also in a fence, is read as a call all the same if it
    names a tool. shows_tools: the chat template puts the tools of a request into the prompt.
    """

    name: str
    reasoning_open: str = "<think>"
    reasoning_close: str = "</think>"
    openers: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()  # markers inside a block of calls
    is_bare: bool = False
    reads_bare: bool = False
    read: families.Reader | None = None
    written: Written | None = None
    shows_tools: bool = False
    id_length: int | None = None  # the template takes only ids of this many letters and digits

    @property
    def can_call_tools(self) -> bool:
        """Whether tools in a request reach the model and its calls are understood."""
        return self.shows_tools and self.read is not None

    @property
    def has_reasoning(self) -> bool:
        """Whether reasoning can be told from the answer."""
        return self.reasoning_close != ""

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker that the parser has to see, also where the vocabulary calls it special."""
        reasoning = tuple(tag for tag in (self.reasoning_open, self.reasoning_close) if tag)
        return (*reasoning, *self.openers, *self.inner)


NONE = Form(name="none")

HERMES = Form(
    name="hermes",
    openers=(families.TOOL_CALL,),
    inner=(families.TOOL_CALL_END,),
    reads_bare=True,
    read=families.read_tool_call,
    written=Written(before='<tool_call>\n{"name": "', middle='", "arguments": ', after="}\n</tool_call>"),
)
QWEN_CODER = Form(
    name="qwen-coder",
    openers=(families.TOOL_CALL, FUNCTION),
    inner=(families.TOOL_CALL_END,),
    reads_bare=True,
    read=families.read_tool_call,
    written=Written(
        before="<tool_call>\n<function=",
        middle=">\n",
        after="</function>\n</tool_call>",
        notation="parameters",
    ),
)
LLAMA = Form(
    name="llama",
    openers=(families.PYTHON_TAG, FUNCTION),
    is_bare=True,
    read=families.read_llama,
    written=Written(before='{"name": "', middle='", "parameters": ', after="}", between="; "),
)
DEEPSEEK = Form(
    name="deepseek",
    openers=(families.CALLS, families.CALL),
    inner=(families.SEPARATOR, families.CALL_END, families.CALLS_END),
    reads_bare=True,
    read=families.read_deepseek,
    written=Written(
        begin=families.CALLS,
        before=f"{families.CALL}function{families.SEPARATOR}",
        middle="\n```json\n",
        after=f"\n```{families.CALL_END}",
        end=families.CALLS_END,
    ),
)
DEEPSEEK_V3_1 = Form(
    name="deepseek-v3.1",
    openers=DEEPSEEK.openers,
    inner=DEEPSEEK.inner,
    reads_bare=True,
    read=families.read_deepseek,
    written=Written(
        begin=families.CALLS,
        before=families.CALL,
        middle=families.SEPARATOR,
        after=families.CALL_END,
        between="",
        end=families.CALLS_END,
    ),
)
MISTRAL = Form(
    name="mistral",
    openers=(families.TOOL_CALLS,),
    inner=(families.ARGS, families.CALL_ID),
    reads_bare=True,
    read=families.read_mistral,
    id_length=9,
    written=Written(
        begin=f"{families.TOOL_CALLS}[",
        before='{"name": "',
        middle='", "arguments": ',
        after="}",
        between=", ",
        end="]",
    ),
)
MISTRAL_V11 = Form(
    name="mistral-v11",
    openers=MISTRAL.openers,
    inner=MISTRAL.inner,
    reads_bare=True,
    read=families.read_mistral,
    id_length=9,
    written=Written(before=families.TOOL_CALLS, middle=families.ARGS, after="", between=""),
)
GEMMA = Form(
    name="gemma",
    reasoning_open="",
    reasoning_close="",
    openers=(families.TOOL_CODE, families.TOOL_CALL_FENCE),
    read=families.read_gemma,
    written=Written(
        begin="```tool_code\n", before="", middle="(", after=")", end="\n```", notation="keywords"
    ),
)
FUNCTION_GEMMA = Form(
    name="function-gemma",
    reasoning_open="",
    reasoning_close="",
    openers=(families.FUNCTION_CALL,),
    inner=(families.FUNCTION_CALL_END, families.ESCAPE),
    read=families.read_function_gemma,
    written=Written(
        before=f"{families.FUNCTION_CALL}call:",
        middle="{",
        after=f"}}{families.FUNCTION_CALL_END}",
        between="",
        notation="pairs",
        mark=families.ESCAPE,
    ),
)
GEMMA_4 = Form(
    name="gemma-4",
    reasoning_open="<|channel>thought\n",
    reasoning_close="<channel|>",
    openers=(families.GEMMA_CALL,),
    inner=(families.GEMMA_CALL_END, families.GEMMA_QUOTE),
    read=families.read_gemma_4,
    written=Written(
        before=f"{families.GEMMA_CALL}call:",
        middle="{",
        after=f"}}{families.GEMMA_CALL_END}",
        between="",
        notation="pairs",
        mark=families.GEMMA_QUOTE,
    ),
)
LISTED = Form(
    name="listed",
    openers=(families.LIST_CALLS,),
    inner=(families.LIST_CALLS_END,),
    read=families.read_listed,
    written=Written(
        begin=f"{families.LIST_CALLS}[",
        before="",
        middle="(",
        after=")",
        between=", ",
        end=f"]{families.LIST_CALLS_END}",
        notation="keywords",
    ),
)
