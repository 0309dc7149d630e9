"""The door: parse the command line, call one function, print what it returns.

Leaves out every computation. Results go to standard output, everything else to standard error; the exit
status is 0, 1 (it failed, and the sentence on standard error says why), 2 (used wrongly) or 130 (Ctrl-C).
torch is imported inside the commands, so that `--help` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from groschen import __version__
from groschen.errors import GroschenError, UsageError

EXIT_CTRL_C = 130  # 128 + SIGINT, as shells report it

app = App(
    name="groschen",
    help="Load a language model with open weights, talk to it, and see what this machine can do with it.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)


@app.command
def doctor(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Say what this machine is: cores, memory, measured roofs, and whether it computes exactly.

    Parameters
    ----------
    json
        Print one JSON object for scripts instead of a table for people.
    """
    from rich.console import Console

    from groschen import doctor as examination

    found = examination.examine()
    if json:
        print(examination.as_json(found), end="")
    else:
        Console().print(examination.as_table(found))


@app.command
def chat(model: str, /) -> None:
    """Talk with a model in the terminal.

    Parameters
    ----------
    model
        A Hugging Face folder, a .gguf file or a hub id such as Qwen/Qwen3-0.6B.
    """
    from groschen.chat_terminal import chat as talk

    talk(model)


@app.command
def export(
    model: str,
    target: Path,
    /,
    *,
    format: Literal["hf", "gguf"] = "hf",
    weights: Literal["bf16", "f16", "q8_0"] = "bf16",
) -> None:
    """Write a model for other programs: a Hugging Face folder, or a GGUF file for llama.cpp and Ollama.

    Parameters
    ----------
    model
        A Hugging Face folder, a .gguf file or a hub id.
    target
        The new folder or the new .gguf file; it must not exist.
    format
        "hf" for a folder with bf16 weights, "gguf" for one file.
    weights
        The type of the matrices in a GGUF file.
    """
    from groschen.export import export_folder, export_gguf

    if format == "gguf":
        export_gguf(model, target, weights)
    elif weights != "bf16":
        raise UsageError(f"--weights {weights} is for --format gguf; a folder is written in bf16")
    else:
        export_folder(model, target)
    print(target)


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit status of one command line; a known failure is a sentence on standard error, no traceback."""
    try:
        app(arguments)
        sys.stdout.flush()
    except CycloptsError as misuse:
        return _report(" ".join(str(misuse).split()), UsageError.exit_status)
    except GroschenError as failure:
        return _report(str(failure), failure.exit_status)
    except KeyboardInterrupt:
        return _report("stopped by Ctrl-C", EXIT_CTRL_C)
    except BrokenPipeError:
        # The reader went away, as in `groschen doctor | head -1`; the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GroschenError.exit_status
    return 0


def _report(sentence: str, status: int) -> int:
    print(f"groschen: {sentence}", file=sys.stderr)
    return status
