"""What is installed: dependencies match the imports, and a wheel carries every file that is needed."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SOURCE = TOP / "src" / "groschen"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]


def package_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", text)[0].replace("-", "_") for text in requirements}


def imported_packages() -> set[str]:
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"groschen"}


# Packages that an extra brings, each imported where it is used, by the extra's name.
OF_EXTRAS = {
    "pynvml": "gpu",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "sandlock": "sandbox",
}

# Packages whose types a declared one takes or returns, so that they come and go with it.
BROUGHT_BY = {
    "referencing": "jsonschema",
    "latex2sympy2_extended": "math_verify",
    "sympy": "math_verify",
    "h11": "uvicorn",
}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    needed = imported_packages()
    declared = package_names(PROJECT["dependencies"])
    assert needed - set(OF_EXTRAS) - set(BROUGHT_BY) == declared
    assert set(BROUGHT_BY) <= needed and set(BROUGHT_BY.values()) <= declared
    assert set(OF_EXTRAS) <= needed
    assert set(OF_EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_the_pinned_torch_of_the_install_script_is_in_the_declared_range() -> None:
    script = (TOP / "scripts" / "install").read_text()
    (pinned,) = re.findall(r"torch==(\d+)\.(\d+)", script)
    (declared,) = [text for text in PROJECT["dependencies"] if text.startswith("torch")]
    low, high = (tuple(map(int, pair)) for pair in re.findall(r"(\d+)\.(\d+)", declared))
    assert low <= tuple(map(int, pinned)) < high
    assert f"{low} <= (major, minor) < {high}" in script


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=TOP, check=True, capture_output=True)
    (wheel,) = folder.glob("groschen-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_carries_every_file_of_the_package_and_nothing_else(wheel_files: set[str]) -> None:
    there = {
        str(path.relative_to(SOURCE.parent))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel_files if name.startswith("groschen/")} == there
    for name in ("py.typed", "penny/model.safetensors", "recipes/countdown.toml", "prices.json"):
        assert f"groschen/{name}" in wheel_files
    assert any(name.startswith("groschen/evals/page/") for name in wheel_files)


def test_the_built_in_model_stays_small() -> None:
    assert sum(path.stat().st_size for path in (SOURCE / "penny").iterdir()) < 10_000_000


def test_a_wheel_carries_its_license(wheel_files: set[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in wheel_files)
