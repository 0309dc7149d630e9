"""Whether a request is too long for its model: judged before it is rendered and encoded, and told after.

Leaves out the size of a body (`limits.py`).
"""

from collections.abc import Iterable, Sequence

from groschen.errors import GroschenError
from groschen.serve import faults
from groschen.serve.faults import ApiFault
from groschen.serve.served import Served
from groschen.text.lengths import tokens_beyond
from groschen.text.messages import Message, texts
from groschen.text.sandbox_limits import MAX_CHARS


def check_messages(served: Served, messages: Sequence[Message], others: object) -> None:
    """Refuse messages that are certainly too long. Takes little time and memory, however long they are.

    others: what the template sees besides them. Raises ApiFault.
    """
    if len(messages) > served.context:  # each has a token of its own at least
        raise _too_long(served, f"{len(messages)} messages, each of a token or more", "messages")
    num_chars = sum(map(len, texts([messages, others])))
    if num_chars > MAX_CHARS:
        raise faults.invalid(
            f"The messages and what belongs to them have {num_chars:,} characters; at most {MAX_CHARS:,} are "
            "read. Please reduce the length of the messages.",
            "messages",
            "string_above_max_length",
        )
    # Templates drop what an assistant thought, and some its old answers; the others' words they show.
    shown = (each.get("content") for each in messages if each.get("role") != "assistant")
    check_texts(served, (text for text in shown if isinstance(text, str)), "messages")


def check_texts(served: Served, given: Iterable[str], param: str) -> None:
    """Refuse texts that together are certainly too long for a prompt. Raises ApiFault."""
    try:
        count = tokens_beyond(served.opened.text.tokenizer, given, served.context)
    except GroschenError as error:
        raise faults.fault_of(error, param) from error
    if count is not None:
        raise _too_long(served, f"more than {count} tokens", param)


def check_length(served: Served, num_prompt: int, max_tokens: int | None, param: str) -> int:
    """How many tokens may be drawn. Raises ApiFault `context_length_exceeded` if the wish is too long."""
    if num_prompt >= served.context:
        raise _too_long(served, f"{num_prompt} tokens", param)
    if max_tokens is not None and num_prompt + max_tokens > served.context:
        raise faults.invalid(
            f"{_limit(served)} However, you requested {num_prompt + max_tokens} tokens ({num_prompt} in the "
            f"{param}, {max_tokens} in the completion). Please reduce the length of the {param} or "
            "completion.",
            param,
            "context_length_exceeded",
        )
    return served.context - num_prompt if max_tokens is None else max_tokens


def _too_long(served: Served, found: str, param: str) -> ApiFault:
    return faults.invalid(
        f"{_limit(served)} However, your {param} resulted in {found}. Please reduce the length of the "
        f"{param}.",
        param,
        "context_length_exceeded",
    )


def _limit(served: Served) -> str:
    return f"This model's maximum context length is {served.context} tokens."
