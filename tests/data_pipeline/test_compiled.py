"""Machine code on disk is made anew when anything that it was made of has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from data_pipeline import compiled


def test_a_constant_of_another_file_is_never_stale(tmp_path: Path) -> None:
    package = tmp_path / "data_pipeline"
    (package / "filters").mkdir(parents=True)
    shutil.copy(compiled.__file__, package / "compiled.py")
    (package / "filters" / "user.py").write_text(
        "from data_pipeline.compiled import compiled\nfrom data_pipeline.words import NUMBER\n"
        "@compiled\ndef number():\n    return NUMBER\nprint(number(), sum(number.stats.cache_hits.values()))\n"
    )

    def run(number: int) -> str:
        (package / "words.py").write_text(f"NUMBER = {number}\n")
        command = [sys.executable, "-P", "-m", "data_pipeline.filters.user"]
        done = subprocess.run(
            command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert [run(1), run(1), run(2), run(2)] == ["1 0\n", "1 1\n", "2 0\n", "2 1\n"]
