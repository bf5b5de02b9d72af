from typing import Final

WITH_LIBQPL: Final[bool]
