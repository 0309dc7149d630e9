"""The phases of a bill and a plan in the report."""

from pathlib import Path

import pytest
from tests.evals.synthetic_run import write_run

from groschen.evals.report import write_report


@pytest.mark.parametrize("name", ["plan.json", "ledger.jsonl"])
def test_a_phase_that_nobody_knows_stands_in_the_report_as_it_was_read(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    content = (folder / name).read_text()
    assert '"training"' in content
    (folder / name).write_text(content.replace('"training"', '"<b>polishing</b>"'))
    page = write_report(folder).read_text()
    assert "&lt;b&gt;polishing&lt;/b&gt;" in page and "<b>polishing" not in page
