"""What is said of a run: breakdown, verdict, caveats, comparison."""
