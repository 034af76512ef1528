"""The KV cache in blocks: who holds how many, and which prompts' blocks can be used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_ROOT = 0

Key = tuple[int, tuple[int, ...]]  # parent block, token ids of this one


@dataclass(slots=True)
class Holding:
    """What one request holds: ``shared`` blocks of its prompt, in order, then private ones."""

    pool: KvBlocks
    shared: list[int] = field(default_factory=list)
    private: int = 0


class KvBlocks:
    """A fixed number of blocks. Each is free, private to one request, or holds a full block of
    some prompt; the last kind is shared by reference and, without references, evicted in order
    of last use."""

    __slots__ = ("_free", "_idle", "_keys", "_nodes", "_refs", "_serial", "caching", "size",
                 "total")  # fmt: skip

    def __init__(self, total: int, block_tokens: int, *, caching: bool) -> None:
        self.total = total
        self.size = block_tokens
        self.caching = caching
        self._free = total
        self._nodes: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._refs: dict[int, int] = {}
        self._idle: dict[int, None] = {}  # without references, longest unused first
        self._serial = _ROOT  # ids are never used twice: a child cannot find a wrong parent

    @property
    def available(self) -> int:
        """Blocks that can be taken now: free, or cached and held by nobody."""
        return self._free + len(self._idle)

    @property
    def usage(self) -> float:
        """Share of blocks that requests hold."""
        return 1.0 - self.available / self.total

    def needed(self, tokens: int) -> int:
        """Blocks for so many tokens."""
        return -(-tokens // self.size)

    def find(self, prompt: Sequence[int] | None) -> list[int]:
        """Cached blocks of the prompt's beginning. One token at least is left to compute."""
        found: list[int] = []
        if prompt is None or not self.caching:
            return found
        parent = _ROOT
        for start in range(0, (len(prompt) - 1) // self.size * self.size, self.size):
            node = self._nodes.get((parent, tuple(prompt[start : start + self.size])))
            if node is None:
                break
            found.append(node)
            parent = node
        return found

    def claim(self, found: list[int], count: int, spare: int) -> Holding | None:
        """``count`` blocks, of which ``found`` are shared; None when fewer than ``spare`` blocks
        would be left."""
        private = count - len(found)
        idle = sum(node in self._idle for node in found)
        if self.available - idle < private + spare:
            return None
        for node in found:
            self._refs[node] += 1
            self._idle.pop(node, None)
        self._take(private)
        return Holding(self, list(found), private)

    def extend(self, holding: Holding) -> bool:
        """One more private block, if there is one."""
        if not self.available:
            return False
        self._take(1)
        holding.private += 1
        return True

    def release(self, holding: Holding) -> None:
        """All blocks back. Of shared ones the end of the prompt is evicted first."""
        self._free += holding.private
        holding.private = 0
        for node in reversed(holding.shared):
            self._refs[node] -= 1
            if not self._refs[node]:
                self._idle[node] = None
        holding.shared.clear()

    def share(self, holding: Holding, prompt: Sequence[int] | None, computed: int) -> None:
        """Full blocks of the prompt that are computed by now can be found by others."""
        if prompt is None or not self.caching:
            return
        parent = holding.shared[-1] if holding.shared else _ROOT
        for index in range(len(holding.shared), min(computed, len(prompt)) // self.size):
            key = (parent, tuple(prompt[index * self.size : (index + 1) * self.size]))
            parent = self._adopt(key)
            holding.shared.append(parent)
            holding.private -= 1

    def _adopt(self, key: Key) -> int:
        """The block of this key with one more reference; a copy of what is there is freed."""
        node = self._nodes.get(key)
        if node is None:
            self._serial = node = self._serial + 1
            self._nodes[key] = node
            self._keys[node] = key
            self._refs[node] = 1
            return node
        self._free += 1
        self._refs[node] += 1
        self._idle.pop(node, None)
        return node

    def _take(self, count: int) -> None:
        while self._free < count:
            node = next(iter(self._idle))
            del self._idle[node], self._refs[node], self._nodes[self._keys.pop(node)]
            self._free += 1
        self._free -= count

    def census(self) -> tuple[int, int, int]:
        """Blocks that are free, cached and idle, cached and in use; the rest is private."""
        return self._free, len(self._idle), len(self._nodes) - len(self._idle)
