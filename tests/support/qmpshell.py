"""Output of qmp-shell."""

from __future__ import annotations

import json
import re
from typing import Any


def answer(said: str) -> dict[str, Any]:
    """Return QEMU's result of the last command of a qmp-shell."""
    (*_, last) = re.findall(r"^\(QEMU\) (\{.*\})$", said, re.M)
    returned: dict[str, Any] = json.loads(last)["return"]
    return returned
