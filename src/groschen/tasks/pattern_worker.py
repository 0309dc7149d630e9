"""The worker that searches with regular expressions, in texts that may make them run for ever: patterns and
JSON schemas.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from jsonschema import FormatChecker
from jsonschema.exceptions import best_match
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

from groschen.tasks.formats import FORMATS, has_format
from groschen.tasks.worker_loop import serve


def judge(job: Mapping[str, object]) -> object:
    """Why the text does not match the pattern, or the value not the schema; None if it does."""
    if "pattern" in job:
        flags = re.IGNORECASE if job.get("ignore_case") else 0
        matched = re.fullmatch(str(job["pattern"]), str(job["text"]), flags)
        return None if matched else "does not match the pattern"
    schema, value = (
        cast("dict[str, Any]", job["schema"]),
        cast("Any", job["value"]),
    )  # as jsonschema types JSON
    # An empty registry: nothing is ever fetched for a reference in a schema.
    validator = validator_for(schema, default=Draft202012Validator)(
        schema, registry=Registry(), format_checker=_FORMAT_CHECKER
    )
    try:
        error = best_match(validator.iter_errors(value))
    except (ArithmeticError, ValueError, TypeError) as failed:
        # The schema was checked when it was read (schemas.py), so it is the value that can't be compared with
        # it: 1e308 overflows against a multipleOf of 0.01.
        return f"the value can't be compared with the schema: {type(failed).__name__}: {failed}"[:500]
    return None if error is None else f"{error.json_path}: {error.message}"[:500]


def _format_checker() -> FormatChecker:
    """A checker of our formats alone: those of jsonschema differ with what else is installed."""
    checker = FormatChecker(())
    for name in FORMATS:
        checker.checkers[name] = (partial(has_format, name=name), ())
    return checker


_FORMAT_CHECKER = _format_checker()


if __name__ == "__main__":
    serve(judge)
