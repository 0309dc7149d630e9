"""The door: parse the command line, call one function, print what it returns.

Leaves out every computation. Results go to standard output, everything else to standard error; the exit
status is 0, 1 (it failed, and the sentence on standard error says why), 2 (used wrongly) or 130 (Ctrl-C).
torch is imported inside the commands, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from groschen import __version__
from groschen.errors import GroschenError, UsageError
from groschen.flags import PATH, too_many, within

EXIT_CTRL_C = 130  # 128 + SIGINT, as shells report it
_SEED = within(least=-(2**63), most=2**63 - 1)
_VERDICT_SECONDS = within(above=0, most=1e6)
T = TypeVar("T")

app = App(
    name="groschen",
    help="Teach a language model with open weights your own checkable task, and prove what was gained.",
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
    from groschen import doctor as examination

    found = examination.examine()
    _show(examination.as_json, examination.as_table, found, json)


@app.command
def chat(model: str, /, *, weights: Literal["bf16", "int8", "int4"] = "bf16") -> None:
    """Talk with a model in the terminal.

    Parameters
    ----------
    model
        A Hugging Face folder, a .gguf file, a run folder or a hub id such as Qwen/Qwen3-0.6B.
    weights
        int8 and int4 are smaller and faster for one reader, and somewhat worse.
    """
    from groschen.chat_terminal import chat as talk

    talk(model, weights=weights)


@app.command
def export(
    model: str,
    target: Annotated[Path, PATH],
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


@app.command
def serve(
    *models: str,
    host: str = "127.0.0.1",
    port: Annotated[int, within(least=0, most=65_535)] = 8000,
    name: Annotated[tuple[str, ...], Parameter(name="--name", negative=())] = (),
    keys: Annotated[Path | None, PATH] = None,
    make_key: str | None = None,
    weights: Literal["bf16", "int8", "int4"] = "bf16",
    speculate: Annotated[int, within(least=0, most=1_000)] = 0,
    follow: Annotated[bool, Parameter(negative=())] = False,
    max_rows: Annotated[int | None, within(least=1, most=100_000)] = None,
    max_queue: Annotated[int, within(least=1, most=1_000_000)] = 1024,
    max_body: Annotated[int, within(least=1024, most=2**31)] = 8 * 1024 * 1024,
    drain: Annotated[float, within(least=0, most=86_400)] = 30.0,
    log_prompts: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Put models behind OpenAI's API, with a page to talk to them.

    Parameters
    ----------
    models
        penny, run folders (their best checkpoint), Hugging Face folders, hub ids or .gguf files.
    host
        The address to listen on; anything but 127.0.0.1 lets other machines in.
    port
        0 takes a free one.
    name
        What clients call the model; once for each model, in their order.
    keys
        A file of hashed API keys; every request needs one then.
    make_key
        Print a new key of this name, add its hash to --keys, and serve nothing.
    weights
        int8 and int4 read fewer bytes for each token: faster for one reader on a CPU, somewhat worse.
    speculate
        Guess so many tokens ahead from the text itself while few answers are drawn; changes no text.
    follow
        Serve a run's newest checkpoint, and change to a newer one when it appears.
    max_rows
        Answers that are drawn together, for each model; without it 64 on a CPU and 256 on a GPU.
    max_queue
        Requests that may wait; more are told to come back.
    max_body
        Bytes of one request.
    drain
        Seconds that open answers get to end after the first Ctrl-C or SIGTERM.
    log_prompts
        Write what is asked into the log too.
    """
    from groschen.serve import command

    if make_key is not None:
        print(command.new_key(make_key, keys, models))
        return
    options = command.ServeOptions(
        names=name, host=host, port=port, keys=keys, weights=weights, speculate=speculate, follow=follow,
        max_rows=max_rows, max_queue=max_queue, max_body=max_body, drain_s=drain, log_prompts=log_prompts,
    )  # fmt: skip
    command.serve(models, options)


@app.command
def train(
    source: str | None = None,
    /,
    *,
    model: str | None = None,
    out: Annotated[Path | None, PATH] = None,
    seed: Annotated[int | None, _SEED] = None,
    set: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    resume: Annotated[Path | None, PATH] = None,
    budget: str | None = None,
    calibration: bool = True,
) -> None:
    """Teach a model a task by reinforcement learning, measure it before and after, and write a report.

    Parameters
    ----------
    source
        A task (countdown, a task.py, a .jsonl file, reasoning-gym:NAME) or a recipe (.toml).
    model
        penny, a Hugging Face folder, a hub id or a .gguf file.
    out
        The new run folder; without it one below runs/.
    seed
        Decides everything that is random.
    set
        A setting of the recipe as key=value, such as optimizer.learning_rate=2e-6; may be given often.
    resume
        Go on with this run folder from its last whole checkpoint.
    budget
        End, measured and whole, within a time, an amount of computing or of money: 10min, 5e14FLOP, 2EUR.
        Without a recipe the sizes of the run are chosen for it: 8h on a CPU, 1h on a GPU.
    calibration
        Without a recipe: try the model for half a minute first, to choose by what it does.
    """
    from groschen.train import command

    given = list(set)
    if seed is not None:
        given.append(f"seed={seed}")
    if budget is not None:
        given.append(f'budget="{budget}"')
    if resume is not None:
        if source is not None or model is not None or out is not None:
            raise UsageError(
                "--resume goes on with a run as it was begun; give no task, --model or --out with it"
            )
        print(command.go_on(resume, given, sys.stderr))
    elif source is None:
        raise UsageError("what shall be learned? Give a task or a recipe, such as: groschen train countdown")
    else:
        print(command.begin(source, model, out, given, sys.stderr, calibrates=calibration))


@app.command(name="eval")
def evaluate(
    model: str,
    /,
    *,
    task: str,
    split: Literal["dev", "test"] = "test",
    against: str | None = None,
    samples: Annotated[int, within(least=1, most=10_000)] = 4,
    problems: Annotated[int | None, within(least=1)] = None,
    max_tokens: Annotated[int, within(least=1, most=10_000_000)] = 512,
    temperature: Annotated[float, within(least=1e-4, most=100, zero="the most probable token")] = 1.0,
    seed: Annotated[int, _SEED] = 0,
    verdict_seconds: Annotated[float, _VERDICT_SECONDS] = 60.0,
    allow_trained: Annotated[bool, Parameter(negative=())] = False,
    out: Annotated[Path | None, PATH] = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure a model on held-out problems, with intervals; two models with a paired test.

    Parameters
    ----------
    model
        penny, a run folder (its best checkpoint), a Hugging Face folder, a hub id or a .gguf file.
    task
        countdown, a task.py, a .jsonl file or reasoning-gym:NAME.
    split
        Which held-out problems; test should be looked at once.
    against
        A second model under the same harness, as the base of the comparison.
    samples
        Completions of each problem.
    problems
        So many problems of the split; without it all.
    max_tokens
        Of one completion; a longer one is cut and has not passed.
    temperature
        0 takes the most probable token, with --samples 1.
    seed
        Decides what is drawn; both models get the same noise.
    verdict_seconds
        That a task.py may take for one verdict; longer is an error.
    allow_trained
        Measure though problems stand in the training split of the model's run.
    out
        A new folder for the graded completions as JSONL.
    json
        Print one JSON object for scripts instead of a table for people.
    """
    from groschen.evals import command
    from groschen.records import Split

    question = command.Question(
        task=task, split=Split(split), num_problems=problems, num_samples=samples, max_tokens=max_tokens,
        temperature=temperature, seed=seed, verdict_seconds=verdict_seconds, allow_trained=allow_trained,
    )  # fmt: skip
    answer = command.ask(question, [model] if against is None else [against, model], out)
    _show(command.as_json, command.as_table, answer, json)


@app.command
def report(run: Annotated[Path, PATH], /, *, format_control: Annotated[Path | None, PATH] = None) -> None:
    """Write the report of a run anew: one HTML page in its folder.

    Parameters
    ----------
    run
        The run folder.
    format_control
        A run like it but for --set rewards.source=format: how much of the gain is format alone.
    """
    from groschen.evals.format_control import take_format_control
    from groschen.evals.report import write_report

    if format_control is not None:
        take_format_control(run, format_control)
    print(write_report(run))


@app.command
def check(
    task: str, /, *, limit: Annotated[int, within(least=0)] = 200,
    verdict_seconds: Annotated[float, _VERDICT_SECONDS] = 60.0,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:  # fmt: skip
    """Try a task's verifier on answers whose verdict is known, before anything is trained.

    Parameters
    ----------
    task
        countdown, a task.py, a .jsonl file or reasoning-gym:NAME.
    limit
        So many problems of each split; 0 tries all.
    verdict_seconds
        That a task.py may take for one verdict; longer is an error.
    json
        Print one JSON object for scripts instead of a table for people.
    """
    from groschen.tasks import check_table
    from groschen.tasks.check import refuse_broken
    from groschen.tasks.load import load_task

    checked = check_table.check_with_bar(load_task(task, verdict_seconds), limit or None)
    _show(check_table.as_json, check_table.as_table, checked, json)
    refuse_broken(checked)


@app.command
def plan(
    recipe: str,
    /,
    *,
    model: str | None = None,
    budget: str | None = None,
    set: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    tokens: Annotated[int | None, within(least=1)] = None,
    calibration: bool = True,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Say what a run will take on this machine before it starts; a task without a recipe gets three sizes.

    Parameters
    ----------
    recipe
        A recipe (.toml) or a task.
    model
        As for train.
    budget
        As for train.
    set
        As for train.
    tokens
        The mean length of a completion that is expected.
    calibration
        Without a recipe: try the model for half a minute first, instead of going by a rule of thumb.
    json
        Print one JSON object for scripts instead of a table for people.
    """
    from groschen.train import command

    given = list(set) if budget is None else [*set, f'budget="{budget}"']
    command.show_plan(recipe, model, given, tokens, calibrates=calibration, json=json)


def _show(as_json: Callable[[T], str], as_table: Callable[[T], object], found: T, json: bool) -> None:
    from rich.console import Console

    if json:
        print(as_json(found), end="")
    else:
        Console().print(as_table(found))


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit status of one command line; a known failure is a sentence on standard error, no traceback."""
    try:
        app(arguments)
        sys.stdout.flush()
    except UnusedCliTokensError as misuse:
        return _report(too_many(misuse.unused_tokens or []), UsageError.exit_status)
    except CycloptsError as misuse:
        return _report(" ".join(str(misuse).split()), UsageError.exit_status)
    except GroschenError as failure:
        return _report(str(failure), failure.exit_status)
    except KeyboardInterrupt as stop:
        return _report(str(stop) or "stopped by Ctrl-C", EXIT_CTRL_C)
    except BrokenPipeError:
        # The reader went away, as in `groschen doctor | head -1`; the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GroschenError.exit_status
    return 0


def _report(sentence: str, status: int) -> int:
    print(f"groschen: {sentence}", file=sys.stderr)
    return status
