"""Results, comparisons and verdicts of a gate as one HTML file that loads nothing."""
