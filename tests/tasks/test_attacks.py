import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacks import attacks

from groschen.errors import Unsupported
from groschen.tasks.sandbox import find_sandbox

SCRIPT = Path(__file__).parents[2] / "scripts" / "attack_sandbox.py"
ATTACKS = {f"{attack.kind}: {attack.name}": attack for attack in attacks()}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, str]]:
    """What each attack came to behind the wall that graded code runs behind on this machine."""
    try:
        find_sandbox()
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(SCRIPT), "--held", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.stdout, done.stderr
    results = json.loads(done.stdout)["results"]
    return {f"{row['kind']}: {row['attack']}": (row["outcome"], row["evidence"]) for row in results}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_the_sandbox_is_held(outcomes: dict[str, tuple[str, str]], name: str) -> None:
    outcome, evidence = outcomes[name]
    assert outcome == "held" or (outcome == "open as said" and ATTACKS[name].open_if_said), evidence


def test_names_of_attacks_are_unique() -> None:
    assert len(ATTACKS) == len(attacks()) >= 80
