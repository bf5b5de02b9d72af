"""Draw the pages' pictures of a terminal: what the commands write here and now. ``make pictures`` runs this."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = 80
COMMANDS = {"info": "numcodecs-qpl info", "demo": "numcodecs-qpl demo"}
"""By name of the picture: what is run for it."""


def draw(command: str) -> str:
    """What `command` writes to a terminal, as a picture in SVG."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(command.split(), capture_output=True, text=True, check=True, env=environment)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(done.stdout.rstrip()))
    picture = console.export_svg(title="", unique_id="terminal")
    # rich's own font would be fetched from another site; the width of the lines is given, whatever the font.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)


def main() -> None:
    """Draw all of them."""
    PICTURES.mkdir(exist_ok=True)
    for name, command in COMMANDS.items():
        (PICTURES / f"{name}.svg").write_text(draw(command))


if __name__ == "__main__":
    main()
