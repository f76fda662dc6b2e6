from collections.abc import Iterable
from typing import Any

from lbcore._expressions import check_pattern as check_pattern

def match(
    image: int, listener: int, method: str, target: str, headers: Iterable[tuple[str, str]],
) -> dict[str, Any]: ...
