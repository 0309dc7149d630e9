"""What a JSON schema costs for each token, and whether every answer is valid by another's validator.

    python benchmarks/run_schemas.py --model FILE [--rows 1,16] [--tokens 192] [--repeats 5] [--answers 20]
        [--weights bf16] [--no-speed] [--no-answers] [--allow-dirty] [--out FOLDER]

Speed: the same prompt, the same number of rows and of tokens, in turn with a schema that never lets a text
end and without one; time from the first token of every row to the last, so the prompt and the compiling of
the schema are left out (the latter is told by itself). Answers: --answers texts at temperature 1 for each of
the ten schemas of the tests, checked by jsonschema; one that ran out of --answer-tokens is not valid.
"""

import argparse
import datetime as dt
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

import jsonschema
from programs import HERE, wait_until_quiet
from run_engine import Line, commit, homeless, is_dirty, machine_words, summary

from groschen.engine.open import Opened, open_engine
from groschen.model.quantized import weights_of
from groschen.records import FinishReason, Guide, Request, SamplingParams
from groschen.serve.grammar import Grammars, JsonSchema

SCHEMAS = HERE.parent / "tests" / "serve" / "ten_schemas.json"
FREE, BOUND = "free", "with a schema"
QUESTION = "Invent data of this JSON schema, and write nothing but the JSON: "
ORDER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "kind": {"enum": ["tool", "food", "book"]},
        "price": {"type": "number", "minimum": 0, "maximum": 500},
        "amount": {"type": "integer", "minimum": 1, "maximum": 99},
        "is_new": {"type": "boolean"},
    },
    "required": ["name", "kind", "price", "amount", "is_new"],
    "additionalProperties": False,
}
ENDLESS = {"type": "array", "items": ORDER, "minItems": 500}  # longer than any text that is timed


def arguments_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="what a JSON schema costs, and whether it holds")
    made.add_argument("--model", required=True, help="penny, a folder or a .gguf file")
    made.add_argument("--weights", default="bf16", help="bf16, int8 or int4")
    made.add_argument("--rows", default="1,16", help="answers drawn together, with commas")
    made.add_argument("--tokens", type=int, default=192, help="of each row that is timed")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--answers", type=int, default=20, help="for each schema")
    made.add_argument("--answer-tokens", type=int, default=600)
    made.add_argument("--no-speed", action="store_true")
    made.add_argument("--no-answers", action="store_true")
    made.add_argument("--quiet-seconds", type=float, default=60, help="wait so long at most for idle cores")
    made.add_argument("--allow-dirty", action="store_true", help="measure uncommitted changes, and say so")
    made.add_argument("--out", type=Path, default=HERE / "results")
    return made


def prompt_of(opened: Opened, schema: object) -> tuple[int, ...]:
    turns = [{"role": "user", "content": QUESTION + json.dumps(schema)}]
    return tuple(opened.text.chat_template().encode(opened.text.tokenizer, turns))


def milliseconds_per_token(
    opened: Opened, guide: Guide | None, rows: int, tokens: int, seed: int
) -> tuple[float, int]:
    """Of a step of all rows, after the first token of the last of them; and how many steps were timed."""
    engine = opened.engine
    sampling = SamplingParams(max_tokens=tokens, temperature=1.0, seed=seed, ignore_end=True)
    engine.add(
        Request(prompt_ids=prompt_of(opened, ORDER), sampling=sampling, num_completions=rows, guide=guide)
    )
    begun: set[int] = set()
    first, steps, drawn = 0.0, 0, 0
    while not engine.is_idle:
        progress = engine.step()
        if len(begun) == rows:
            steps += 1
            drawn += sum(len(each.token_ids) for each in progress)
            continue
        begun |= {each.sample for each in progress if each.token_ids}
        first = time.perf_counter()
    seconds = time.perf_counter() - first
    if drawn != steps * rows:
        sys.exit(
            f"{rows} rows drew {drawn} tokens in {steps} steps: some ended early, the times can't be compared"
        )
    return seconds * 1000 / steps, steps


def measure_speed(given: argparse.Namespace, opened: Opened, guide: Guide) -> dict[str, Line]:
    """For each number of rows: milliseconds a token, free and bound in turn, and the ratio of each pair."""
    told: dict[str, Line] = {}
    for rows in map(int, given.rows.split(",")):
        found: dict[str, list[float]] = {FREE: [], BOUND: []}
        for repeat in range(-1, given.repeats):  # the first warms up
            wait_until_quiet(given.quiet_seconds)
            order = (FREE, BOUND) if repeat % 2 else (BOUND, FREE)
            for name in order:
                bound = guide.fork() if name == BOUND else None
                taken, _ = milliseconds_per_token(opened, bound, rows, given.tokens, repeat + 1)
                found[name] += [taken] if repeat >= 0 else []
        pairs = [bound / free for bound, free in zip(found[BOUND], found[FREE], strict=True)]
        told[f"{rows} rows" if rows > 1 else "1 row"] = {
            **{name: summary(values) for name, values in found.items()},
            "ratio": summary(pairs),
            "ratio_of_medians": statistics.median(found[BOUND]) / statistics.median(found[FREE]),
        }
        print(f"{rows} rows: {told[f'{rows} rows' if rows > 1 else '1 row']}", file=sys.stderr, flush=True)
    return told


def count_valid(given: argparse.Namespace, opened: Opened, grammars: Grammars) -> dict[str, Line]:
    """For each schema: valid and all answers, how many were cut off, how many differ, an example."""
    told: dict[str, Line] = {}
    schemas = json.loads(SCHEMAS.read_text())
    context = opened.engine.model.config.max_context
    for name, schema in schemas.items():
        validator, prompt = jsonschema.Draft202012Validator(schema), prompt_of(opened, schema)
        tokens = min(given.answer_tokens, context - len(prompt))
        sampling = SamplingParams(max_tokens=tokens, temperature=1.0, seed=4)
        request = Request(
            prompt_ids=prompt, sampling=sampling, num_completions=given.answers,
            guide=grammars.guide(JsonSchema(schema)),
        )  # fmt: skip
        (completions,) = opened.engine.generate([request])
        texts = [each.text for each in completions]
        told[name] = {
            "valid": sum(is_valid(validator, text) for text in texts),
            "answers": len(texts),
            "cut": sum(each.finish_reason is FinishReason.LENGTH for each in completions),
            "different": len(set(texts)),
            "example": texts[0],
        }
        print(f"{name}: {told[name]}", file=sys.stderr, flush=True)
    return told


def is_valid(validator: jsonschema.Draft202012Validator, text: str) -> bool:
    try:
        return bool(validator.is_valid(json.loads(text)))
    except json.JSONDecodeError:
        return False


def total(told: dict[str, Line], key: str) -> int:
    return sum(int(str(line[key])) for line in told.values())


def main() -> None:
    """Measure, print, keep the result."""
    given = arguments_parser().parse_args()
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        sys.exit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    opened = open_engine(given.model, weights=weights_of(given.weights))
    grammars = Grammars(opened.text.tokenizer, opened.engine.end_ids)
    grammars.prepare()
    begun = time.perf_counter()
    guide = grammars.guide(JsonSchema(ENDLESS))
    compiled_ms = (time.perf_counter() - begun) * 1000
    speed = {} if given.no_speed else measure_speed(given, opened, guide)
    valid = {} if given.no_answers else count_valid(given, opened, grammars)
    last = list(speed.values())[-1]["ratio"] if speed else {"median": None, "min": None, "max": None}
    assert isinstance(last, dict)
    made: Line = {
        "name": "schemas",
        "commit": commit(dirty),
        "dirty": dirty,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine_words(),
        "model": Path(given.model).name,
        "weights": given.weights,
        "command": homeless(shlex.join(["python", "benchmarks/run_schemas.py", *sys.argv[1:]])),
        "unit": f"time per token with a schema over that without, {given.rows.split(',')[-1]} rows",
        "repeats": given.repeats,
        **last,
        "ms_per_token": speed,
        "compile_ms": compiled_ms,
        "valid": total(valid, "valid"),
        "answers": total(valid, "answers"),
        "by_schema": valid,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "schemas.json").write_text(json.dumps(made, indent=1) + "\n")
    if valid:
        print(f"valid: {made['valid']} of {made['answers']}")
    for rows, line in speed.items():
        ratio = line["ratio"]
        assert isinstance(ratio, dict)
        spread = f"{ratio['min']:.3f} to {ratio['max']:.3f}"
        print(f"{rows}: {ratio['median']:.3f} times the time per token ({spread})")


if __name__ == "__main__":
    main()
