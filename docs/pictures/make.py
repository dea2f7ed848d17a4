"""The README's pictures, of the demo's own terminal output and page: `make demo pictures`.

python -m docs.pictures.make
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from deploy.inventory import ROOT
from tests.pipeline.browser import Browser

HERE = Path(__file__).parent
COLUMNS = 104
PAGE = ROOT / "work/demo/report/report.html"
WIDTH, HEIGHT = 1280, 1420


def main() -> None:
    """Write terminal.svg and page.png beside this file."""
    variables = {"INVENTORY": "inventory.demo.yaml", "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("fab")), "npu-bench", "score"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi("$ fab npu-bench score\n" + done.stdout.decode().replace(f"{ROOT}/", "")))
    console.save_svg(str(HERE / "terminal.svg"), title="stgcn-ascend-kit")
    with Browser() as browser:
        browser.open(PAGE, "en", WIDTH, HEIGHT, dark=False)
        browser.screenshot(HERE / "page.png", (WIDTH, HEIGHT))


if __name__ == "__main__":
    main()
