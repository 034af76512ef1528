"""Where each nanosecond of a request went: evidence in, parts that add up exactly out."""
