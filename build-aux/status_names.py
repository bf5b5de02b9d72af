"""Make a C table of libqpl's status names from its own header, so that no list is kept by hand.

Only the names are read here; the compiler gives each its number.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ENUMERATOR = re.compile(r"^\s*(QPL_STS_\w+)\s*=", re.MULTILINE)


def main(header: str, target: str) -> None:
    """Write the table for `header` to `target`. Deprecated names are left out: using them warns."""
    names = ENUMERATOR.findall(Path(header).read_text())
    if "QPL_STS_OK" not in names:
        raise SystemExit(f"{header} does not look like libqpl's status.h: no QPL_STS_OK")
    rows = "\n".join(f'    {{(unsigned){name}, "{name}"}},' for name in names)
    Path(target).write_text(
        "/* Made by build-aux/status_names.py from qpl/c_api/status.h. */\n"
        "#include <qpl/qpl.h>\n\n"
        "static const struct { unsigned number; const char *name; } qpl_status_names[] = {\n"
        f"{rows}\n}};\n"
        f"enum {{ qpl_status_name_count = {len(names)} }};\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
