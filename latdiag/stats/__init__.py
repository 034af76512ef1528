"""Numbers in, estimates out: values with an interval, the n behind it, or a reason for none."""

from latdiag.stats.estimate import Estimate, mean, quantile, sample_bound, share
from latdiag.stats.sample import Sample

__all__ = ["Estimate", "Sample", "mean", "quantile", "sample_bound", "share"]
