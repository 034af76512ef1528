"""When a writer puts what it has on disk: at any age of a run a kill loses at most 5 s."""

from __future__ import annotations

from dataclasses import dataclass

#: What the documentation promises.
MOST_LOST_S = 5.0
FIRST_S = 1.0
#: The rest of the promise is for writing: while a part is written, the one before is the newest.
LONGEST_S = 3.0
#: Parts of a long run are larger: files grow with its length less than it does.
_PART_OF_AGE = 1 / 30


@dataclass(slots=True)
class Flushes:
    """``begun_s``: when the writer began; all times are of one monotonic clock, in seconds."""

    begun_s: float

    def first_s(self) -> float:
        """When to write for the first time."""
        return self.begun_s + FIRST_S

    def next_s(self, last_s: float) -> float:
        """When to write again after a flush that began at ``last_s``."""
        age = last_s - self.begun_s
        return last_s + min(LONGEST_S, max(FIRST_S, age * _PART_OF_AGE))
