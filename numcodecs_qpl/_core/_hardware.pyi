from typing import Final

TIMEOUT_SECONDS: Final[float]

def set_timeout(seconds: float) -> None: ...
