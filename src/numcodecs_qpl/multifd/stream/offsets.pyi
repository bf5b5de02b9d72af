from typing import Any

import numpy as np
from numpy.typing import NDArray

def read_offsets(data: Any, offsets: NDArray[np.uint64], page_size: int) -> bool: ...
