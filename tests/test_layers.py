"""The order of the house: a module imports only what stands above it. The source is read, not run."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "groschen"

# From the ground to the door. A name that ends with "/" is a room; its files stand in ORDER_IN_ROOM.
ROOMS = ["__init__", "errors", "commands", "files", "own_files", "records", "ranges", "config", "cgroups",
         "clock", "progress", "machine", "work_sizes", "heap", "roofs", "energy", "prices", "ledger", "bill",
         "model/", "text/", "engine/", "plan_memory", "plan_time", "plan",
         "runs/", "tasks/", "rollout", "evals/", "live_words", "live", "trackers", "train/",
         "serve/", "export", "doctor", "chat_terminal", "flags", "cli", "__main__"]  # fmt: skip
ORDER_IN_ROOM = {
    "model/": """
        shapes values families rope config tensor_shapes flops kvcache
        build_kernels attention_gradient compiled ordered portable products operations quantized fused
        transformer exactness
        atomic file_marks safetensors_folder folder_writer
        gguf_format gguf_names gguf_rope gguf_blocks gguf_writer gguf_splits gguf_tokenizer
        gguf_config gguf_metadata gguf_checkpoint gguf_export
        checkpoint load score""",
    "text/": """
        messages pieces tokenizer lengths regular_expressions tokenizer_file gguf_vocab guard
        sandbox_limits sandbox_syntax sandbox
        stream chat bundle load""",
    "engine/": """
        noise candidates penalties sampling guide blocks speculation sequence memory scheduler
        prompt_logprobs graphs
        runner engine open""",
    "runs/": "disk budget manifest checkpoints journal lock folder rollouts",
    "tasks/": """
        arithmetic equations formats lines units numbers slots
        confine inside_values inside_run inside_sides inside_program inside_tests inside frames
        jsonl splits gate identity foreign task judging schemas worker_loop seccomp walls
        mathematics_worker pattern_worker workers
        answers choice combined mathematics patterns sandbox json_schema
        code_blocks code_runs unit_tests verifiers
        overlap spelling trials usual check check_table user_file jsonl_task reasoning_gym
        task_worker task_process countdown load""",
    "evals/": """
        quantiles stats power comparison wording evaluate trained_on command
        markup report_data format_control report_text figures report_results report_cost report_curves
        report_examples report_facts report_headline report""",
    "train/": """
        advantages alarms batch curriculum losses measuring optimizer rewards recipe reference state step
        calibration metrics prompt_length planning known sizing advice remaining signals session grpo origin
        opening command""",
    "serve/": """
        events faults field_types fields
        forms/cursor forms/json_text forms/calls forms/literals forms/objects forms/tagged forms/families
        forms/form forms/detect forms/forced
        parser grammar budget calling
        served ticket engines host logs keys connections limits wire health metrics
        sampling_fields lengths prompt guides stops formats generation answer
        chat_fields chat completions_fields completions
        responses_items responses_fields responses_events responses embeddings models openapi_answers openapi
        page_files page_words glance pages app command""",
}
ORDER = [room + name for room in ROOMS for name in ORDER_IN_ROOM.get(room, "").split() or [""]]

MAY_IMPORT_INSIDE_FUNCTIONS = {"cli"}  # so that --help answers at once
# extras that only some users install: imported where they are used
OPTIONAL_PACKAGES = {"pynvml", "tensorboard", "wandb", "mlflow", "sandlock"}


def modules() -> dict[str, Path]:
    return {str(path.relative_to(SOURCE).with_suffix("")): path for path in sorted(SOURCE.rglob("*.py"))}


MODULES = modules()
PLAIN = sorted(name for name in MODULES if not name.endswith("/__init__"))


def place(module: str) -> int:
    assert module in ORDER, f"{module}.py has no place: add it to ROOMS or ORDER_IN_ROOM here"
    return ORDER.index(module)


def imports_of(path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Each import statement with each dotted name that it brings in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the full name, not a relative import"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def our_module(dotted: str) -> str | None:
    """The module of this package that a dotted name means or lies in; None for others' packages."""
    first, *rest = dotted.split(".")
    if first != "groschen":
        return None
    for length in range(len(rest), 0, -1):
        if "/".join(rest[:length]) in MODULES:
            return "/".join(rest[:length])
    room = "/".join([*rest[:1], "__init__"])
    return room if room in MODULES else "__init__"


@pytest.mark.parametrize("module", PLAIN)
def test_a_module_imports_only_what_stands_above_it(module: str) -> None:
    for node, dotted in imports_of(MODULES[module]):
        imported = our_module(dotted)
        if imported is None:
            continue
        where = f"{module}.py:{node.lineno}"
        assert not imported.endswith("/__init__"), f"{where}: import from the file, not the room"
        assert place(imported) < place(module), f"{where} imports {imported}, which stands below it"


@pytest.mark.parametrize("module", PLAIN)
def test_imports_stand_at_the_top_of_the_file(module: str) -> None:
    if module in MAY_IMPORT_INSIDE_FUNCTIONS:
        return
    top = ast.parse(MODULES[module].read_text()).body
    at_top = {node.lineno for node in top if isinstance(node, ast.Import | ast.ImportFrom)}
    for node, dotted in imports_of(MODULES[module]):
        optional = dotted.split(".")[0] in OPTIONAL_PACKAGES
        assert optional or node.lineno in at_top, f"{module}.py:{node.lineno}: import {dotted} at the top"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_types_and_running_code_see_the_same_imports(module: str) -> None:
    assert "TYPE_CHECKING" not in MODULES[module].read_text()


def test_the_file_of_a_room_itself_imports_nothing() -> None:
    for module, path in MODULES.items():
        if module.endswith("__init__"):
            # The package's own hands out names lazily.
            allowed = ["importlib"] if module == "__init__" else []
            assert [dotted for _, dotted in imports_of(path)] == allowed, module


def test_the_order_names_only_files_that_exist_and_each_once() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert [name for name in ORDER if name not in MODULES] == []


@pytest.mark.parametrize("module", ["tasks.verifiers", "tasks.user_file", "tasks.load"])
def test_what_a_worker_process_loads_does_not_bring_torch_in(module: str) -> None:
    program = f"import sys, groschen.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
