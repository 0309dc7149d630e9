"""groschen: one language model for training and serving, bit for bit the same in both.

The names that a task.py needs are found here; each is imported when it is first asked for, so that
importing groschen costs nothing. Their types stand in __init__.pyi.
"""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "Problem": "groschen.records",
    "Split": "groschen.records",
    "Verdict": "groschen.records",
    "read_jsonl": "groschen.tasks.jsonl",
    "verifiers": "groschen.tasks",
}
__all__ = ["Problem", "Split", "Verdict", "__version__", "read_jsonl", "verifiers"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'groschen' has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name])
    return (
        importlib.import_module("groschen.tasks.verifiers") if name == "verifiers" else getattr(module, name)
    )
