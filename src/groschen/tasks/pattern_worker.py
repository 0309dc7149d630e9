"""The worker that searches with regular expressions, in texts that may make them run for ever: patterns and
JSON schemas.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from jsonschema.exceptions import best_match
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

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
    )  # JSON, as jsonschema types it
    # An empty registry: nothing is ever fetched for a reference in a schema.
    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())
    error = best_match(validator.iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message}"[:500]


if __name__ == "__main__":
    serve(judge)
