"""A stack's own metrics beside those of watch: panels that the dashboards of stacks share."""

from __future__ import annotations

from latdiag.dashboards.ours import CHANGES, WHICH_MODEL, WHICH_WATCH, beside, component
from latdiag.dashboards.panels import Dashboard, Panel, Query, Row, Variable
from latdiag.dashboards.promql import mean, native, quantile, summed


def dashboard(name: str, title: str, served: str, rows: tuple[Row, ...]) -> Dashboard:
    """``served``: the query of the models that the stack itself names; empty: it names none."""
    chosen = (Variable("served", f"Model as {title} names it", served, several=True),)
    return Dashboard(
        f"latdiag-{name}",
        f"latdiag beside {title}",
        f"What latdiag watch says of {title}, beside {title}'s own metrics. The two are measured"
        " independently: where they disagree, the panel says what each of them includes.",
        (WHICH_WATCH, WHICH_MODEL, *(chosen if served else ())),
        (beside(title), *rows),
        changes=CHANGES,
    )


def gauges(
    title: str, description: str, unit: str, names: dict[str, str], *of: str, by: str = "instance"
) -> Panel:
    """Gauges of each server. ``names``: legend by metric."""
    return Panel(
        title,
        description,
        unit,
        tuple(
            Query(f"sum by ({by}) ({native(name, *of)})", f"{{{{{by}}}}}: {legend}")
            for name, legend in names.items()
        ),
    )


def rates(title: str, description: str, unit: str, names: dict[str, str], *of: str) -> Panel:
    """Counters, each second. ``names``: legend by metric."""
    return Panel(
        title,
        description,
        unit,
        tuple(Query(summed(native(name, *of)), legend) for name, legend in names.items()),
    )


def means(title: str, description: str, parts: dict[str, str], *of: str) -> Panel:
    """Means of histograms. ``parts``: histogram by component of ours, or by any other legend."""
    ours = tuple(component(part) for part in parts if part in ("queue", "prefill", "decode"))
    theirs = tuple(Query(mean(name, *of), f"server: {part}") for part, name in parts.items())
    return Panel(title, description, "s", ours + theirs)


def quantiles(title: str, description: str, name: str, *of: str) -> Panel:
    bucket = native(f"{name}_bucket", *of)
    return Panel(
        title,
        description,
        "s",
        (
            *(Query(quantile(q, bucket), f"p{q:.0%}"[:-1]) for q in (0.99, 0.95, 0.5)),
            Query(mean(name, *of), "mean"),
        ),
    )
