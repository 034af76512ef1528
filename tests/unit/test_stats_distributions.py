"""Quantiles and shares of distributions: those of scipy, whichever way it was loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Says how much of scipy was loaded, then holds every value to that of the whole package.
_SAME = """
from latdiag.stats.distributions import binomial_share, normal_quantile, t_quantile
levels = [1e-9, 0.025, 0.5, 0.975, 1 - 1e-9]
freedoms = [0.3, 1.0, 2.5, 7.0, 30.0, 1e3, 1e7]
shares = [(k, n, p) for n in (1, 9, 130, 10**6) for k in (0, n // 2, n) for p in (0.05, 0.5, 0.99)]
found = [normal_quantile(level) for level in levels]
found += [t_quantile(freedom, level) for freedom in freedoms for level in levels]
found += [binomial_share(*share) for share in shares]
print("whole" if "scipy.special" in sys.modules else "alone")
import scipy.special as whole
assert whole.__file__, "the true package, not what stood in for it"
wanted = [whole.ndtri(level) for level in levels]
wanted += [whole.stdtrit(freedom, level) for freedom in freedoms for level in levels]
wanted += [whole.bdtr(*share) for share in shares]
assert found == wanted
"""
_THREAD = (
    "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
)
_LACKING = """
class Lacking:
    asked = 0
    def find_spec(self, name, path=None, target=None):
        Lacking.asked += name == "scipy.special._ufuncs"
        if Lacking.asked == 1:
            Lacking.asked += 1
            raise ImportError("not without its package")
sys.meta_path.insert(0, Lacking())
"""


@pytest.mark.parametrize(
    ("before", "loaded"),
    [
        ("", "alone"),
        ("import scipy.special\n", "whole"),
        (_THREAD, "whole"),
        (_LACKING, "whole"),
    ],
    ids=[
        "as a verb loads it",
        "it was there",
        "another thread could see",
        "its part does not load alone",
    ],
)
def test_values_are_those_of_scipy(before: str, loaded: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + before + _SAME],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{loaded}\n", "")
