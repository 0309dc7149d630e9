"""A program in its own process: run once for each standard input, or as the module that tests ask.

As near as can be to `python program.py`: its own module, `exit`, the end of threads, atexit and streams. What
still differs: no other process can be started, and only Python's standard library is there.

Inside the sandbox, by the standard library alone: this text is given to a process that sees nothing of
groschen (sandbox.py). `Any` stands for values of foreign code, which may raise anything: it goes back as
data.
"""

import atexit
import builtins
import gc
import io
import json
import os
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, NoReturn

from groschen.tasks.inside_values import Pipes

_MAX_WORDS = 500  # characters of an error


def run(source: str, name: str = "__main__") -> dict[str, Any]:
    """Run a program as a module of this name; the names that it leaves behind, also if it exits."""
    module = ModuleType(name)
    module.__dict__.update({"__builtins__": builtins, "__file__": "program.py"})
    sys.modules[name] = module
    code = compile(source, "<program>", "exec")
    try:
        exec(code, module.__dict__)  # noqa: S102 - this is what the sandbox is for
    except SystemExit:
        if name == "__main__":
            raise
    return module.__dict__


def cases(pipes: Pipes) -> None:
    """Run the program for each input: a message with its output, and why it ended if it did not end well.

    The program is the first message, each input one more.
    """
    source = b"".join(pipes.chunks()).decode("utf-8", "surrogatepass")
    os._exit = _end  # else the process would end before its output is read
    streams = sys.stdin, sys.stdout, sys.stderr
    while True:
        given = b"".join(pipes.chunks())
        pipes.silence()  # else a new file could get the number of one that the last case closed
        read, written = os.memfd_create("input"), os.memfd_create("output")
        os.write(read, given)
        os.lseek(read, 0, os.SEEK_SET)
        os.dup2(read, 0)
        os.dup2(written, 1)
        os.close(read)
        sys.stdin = io.TextIOWrapper(
            io.BufferedReader(io.FileIO(0, "r", closefd=False)), "utf-8", newline="\n"
        )
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8", newline="\n"
        )
        sys.__stdin__, sys.__stdout__, sys.stderr = sys.stdin, sys.stdout, streams[2]  # type: ignore[misc]
        sys.argv = ["program.py"]
        why = _run_case(source, sys.stdout)
        said = os.pread(written, os.fstat(written).st_size, 0)
        os.close(written)
        sys.modules.pop("__main__", None)
        gc.collect()  # the memory of this case is not the next one's
        pipes.send(b"O", [json.dumps(why).encode() + b"\n", said])


def _end(status: int) -> NoReturn:
    raise SystemExit(status)


def _run_case(source: str, output: io.TextIOWrapper) -> str | None:
    """Why the program did not end well; None if it did. Ends as Python ends: threads, atexit, streams."""
    why = None
    try:
        run(source)
    except SystemExit as ended:
        why = None if ended.code in (None, 0) else f"exit status {str(ended.code)[:100]}"
    except BaseException as error:  # noqa: BLE001
        why = last_line(error)
    try:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        for stream in dict.fromkeys((sys.stdout, output)):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException as error:  # noqa: BLE001
        return why or last_line(error)
    return why


def last_line(error: BaseException) -> str:
    """The class of an exception and its words."""
    return "".join(traceback.format_exception_only(error)).strip()[-_MAX_WORDS:]
