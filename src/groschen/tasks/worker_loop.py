"""The loop of a worker process: a line of JSON in, a line of JSON out, one after the other.

Runs in the main thread, imports nothing heavy, and limits the memory of its process. The parent holds the
clock (workers.py). What a library prints goes nowhere: the protocol has a descriptor of its own.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

MEMORY_BYTES = 1 << 30  # of address space; SymPy takes some 200 MB, and four workers may run

_WATCHED_SECONDS = 1.0


class Refused(Exception):
    """The job can't be done within the limits of memory or depth; the message says which."""


def serve(judge: Callable[[Mapping[str, object]], object]) -> None:
    """Answer every line until the input ends: {"value": ...}, {"refused": why} or {"broken": why}."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(judge, line)), file=answers, flush=True)


def end_with(parent: int) -> None:
    """End this process, the first of its session, and those that it started when the parent is gone: nobody
    would end a job that never does.
    """
    while os.getppid() == parent:
        time.sleep(_WATCHED_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _answer(judge: Callable[[Mapping[str, object]], object], line: str) -> object:
    try:
        return {"value": judge(json.loads(line))}
    except Refused as why:
        return {"refused": str(why)}
    except MemoryError:
        return {"refused": f"it takes more than {MEMORY_BYTES >> 30} GB of memory"}
    except RecursionError:
        return {"refused": "it is nested too deeply"}
    except Exception as broken:  # noqa: BLE001 - the parent makes an error of the verdict
        return {"broken": f"{type(broken).__name__}: {broken}"}
