"""The requests of a diagnosed run for other programs: traces, timelines, tables, metrics."""
