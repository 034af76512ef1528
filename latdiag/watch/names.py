"""Which values of a label are told apart: bounded, whatever senders make up."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

OTHER = "other"
#: Values of a label that are told apart.
MOST = 20
#: Half of them are taken as they come; the rest have to be seen so often first, so that values
#: that nobody uses twice leave them free.
_OFTEN = 10
_CANDIDATES = 1_000
#: A name that was not seen for so long gives way.
_IDLE_NS = 3_600_000_000_000


class Names:
    """``folded``: values that were counted as ``other``."""

    def __init__(self, most: int = MOST) -> None:
        self.folded = 0
        self._most = most
        self._seen_ns: dict[str, int] = {}
        self._candidates: OrderedDict[str, int] = OrderedDict()

    def fold(self, values: NDArray[np.object_], now_ns: int) -> NDArray[np.object_]:
        """``values`` with ``other`` for those that are not told apart; empty ones stay."""
        distinct, codes = np.unique(values.astype(str), return_inverse=True)
        counts = np.bincount(codes, minlength=len(distinct))
        names = []
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            good = not value or self._is_named(value, count, now_ns)
            self.folded += 0 if good else count
            names.append(value if good else OTHER)
        return np.array(names, dtype=object)[codes] if len(codes) else values

    def _is_named(self, value: str, count: int, now_ns: int) -> bool:
        if value in self._seen_ns:
            self._seen_ns[value] = now_ns
            return True
        if len(self._seen_ns) >= self._most:
            idle = min(self._seen_ns, key=lambda name: self._seen_ns[name])
            if now_ns - self._seen_ns[idle] < _IDLE_NS:
                return False
            del self._seen_ns[idle]
        seen = self._candidates.pop(value, 0) + count
        if len(self._seen_ns) < self._most // 2 or seen >= _OFTEN:
            self._seen_ns[value] = now_ns
            return True
        self._candidates[value] = seen
        while len(self._candidates) > _CANDIDATES:
            self._candidates.popitem(last=False)
        return False
