"""The data room is light: its stages start at once, on a machine without an accelerator's libraries too."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "pyarrow",
    "pandas",
    "hydra",
    "rich",
    "rensa",
    "ftfy",
    "trafilatura",
    "ray",
    "openai",
)


def test_the_room_imports_nothing_heavy() -> None:
    modules = sorted(f"tuneline.data.{path.stem}" for path in (ROOT / "src/tuneline/data").glob("[a-z]*.py"))
    program = f"import sys, {', '.join(modules)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.strip() == "[]"
