"""Panels and dashboards, and their JSON: Grafana's classic schema (schemaVersion 39)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from latdiag.model.components import COMPONENTS

Json: TypeAlias = dict[str, object]
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
#: One colour for a component on all dashboards; classes that evidence cannot tell apart have
#: names of their own and take Grafana's.
_COLOURS = dict(
    zip(
        COMPONENTS,
        (
            *("purple", "light-blue", "dark-yellow", "light-orange", "red"),
            *("blue", "dark-purple", "green", "gray"),
        ),
        strict=True,
    )
)
_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Query:
    """``legend``: with ``{{label}}``. ``instant``: the value now. ``exemplars``: dots that lead
    to a trace, where the data source names where traces are."""

    expr: str
    legend: str
    instant: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit``: Grafana's word (``s``, ``percentunit``, ``reqps``, ``short``). ``stack``: series
    on top of each other, which only parts of one whole may be."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 12
    height: int = 8
    stack: bool = False
    text: bool = False
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """``values``: of a fixed list, the first is chosen; else ``query`` asks for them."""

    name: str
    label: str
    query: str = ""
    values: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    #: What moved, drawn into each panel: an expression that has a value while a change holds.
    changes: str = ""

    def document(self) -> Json:
        return {
            "__inputs": [],
            "__elements": {},
            "__requires": _requirements(self.rows),
            "annotations": {"list": list(_annotations(self.changes))},
            "description": self.description,
            "editable": True,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "id": None,
            "links": [_LINK],
            "panels": list(_placed(self.rows)),
            "refresh": "30s",
            "schemaVersion": 39,
            "tags": ["latdiag"],
            "templating": {"list": [_DATASOURCE, *map(_variable, self.variables)]},
            "time": {"from": "now-3h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
            "weekStart": "",
        }


_LINK: Json = {
    "asDropdown": True,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "tags": ["latdiag"],
    "targetBlank": False,
    "title": "Other dashboards of latdiag",
    "tooltip": "With the same data source, models and time",
    "type": "dashboards",
    "url": "",
}
_DATASOURCE: Json = {
    "hide": 0,
    "includeAll": False,
    "label": "Data source",
    "multi": False,
    "name": "datasource",
    "options": [],
    "query": "prometheus",
    "refresh": 1,
    "regex": "",
    "type": "datasource",
}


def _requirements(rows: tuple[Row, ...]) -> list[Json]:
    kinds = sorted({panel.kind for row in rows for panel in row.panels})
    panels: list[Json] = [
        {"type": "panel", "id": kind, "name": kind, "version": ""} for kind in kinds
    ]
    return [
        {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.4.0"},
        {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        *panels,
    ]


def _annotations(changes: str) -> Iterator[Json]:
    yield {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    if changes:
        yield {
            "datasource": SOURCE,
            "enable": True,
            "expr": changes,
            "iconColor": "orange",
            "name": "Changes",
            "step": "60s",
            "tagKeys": "metric,component,replica",
            "textFormat": "{{metric}} of {{model}} moved: {{component}} {{replica}}",
            "titleFormat": "Change",
        }


def _variable(variable: Variable) -> Json:
    common = {"hide": 0, "label": variable.label, "name": variable.name, "multi": variable.several}
    if variable.values:
        options = [
            {"selected": not index, "text": value, "value": value}
            for index, value in enumerate(variable.values)
        ]
        query = ",".join(variable.values)
        return {
            **common,
            "current": options[0],
            "includeAll": False,
            "options": options,
            "query": query,
            "type": "custom",
        }
    found: Json = {
        **common,
        "datasource": SOURCE,
        "definition": variable.query,
        "includeAll": variable.several,
        "options": [],
        "query": variable.query,
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "type": "query",
    }
    if variable.several:
        everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
        found |= {"allValue": ".*", "current": everything}
    return found


def _placed(rows: tuple[Row, ...]) -> Iterator[Json]:
    """Panels of a row beside each other as long as they fit, lines below each other."""
    number, y = 0, 0
    for row in rows:
        number += 1
        yield {
            "collapsed": False,
            "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y},
            "id": number,
            "panels": [],
            "title": row.title,
            "type": "row",
        }
        y, x, highest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y, highest = 0, y + highest, 0
            number += 1
            yield _panel(panel, number, {"h": panel.height, "w": panel.width, "x": x, "y": y})
            x, highest = x + panel.width, max(highest, panel.height)
        y += highest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    found: Json = {
        "datasource": SOURCE,
        "description": panel.description,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(_overrides(panel))},
        "gridPos": place,
        "id": number,
        "options": _options(panel),
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "title": panel.title,
        "type": panel.kind,
    }
    if panel.kind == "table":
        found["transformations"] = [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": dict.fromkeys(("Time", *panel.hidden), True)},
            },
        ]
    return found


def _target(panel: Panel, query: Query, index: int) -> Json:
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "exemplar": query.exemplars,
        "expr": query.expr,
        "format": "table" if panel.kind == "table" else "time_series",
        "instant": query.instant,
        "legendFormat": query.legend,
        "range": not query.instant,
        "refId": chr(ord("A") + index),
    }


def _defaults(panel: Panel) -> Json:
    found: Json = {"unit": panel.unit, "custom": {}, "color": {"mode": "palette-classic"}}
    if panel.kind == "table":
        found["custom"] = {"align": "auto", "inspect": False}
    if panel.kind == "timeseries":
        found["custom"] = {
            "fillOpacity": 60 if panel.stack else 0,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"group": "A", "mode": "normal" if panel.stack else "none"},
        }
    return found


def _overrides(panel: Panel) -> Iterator[Json]:
    if panel.kind == "timeseries" and any(q.legend == "{{component}}" for q in panel.queries):
        for name, colour in _COLOURS.items():
            yield {
                "matcher": {"id": "byName", "options": name},
                "properties": [
                    {"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}},
                ],
            }
    if panel.kind == "table":
        for index, query in enumerate(panel.queries):
            # Grafana numbers the columns of values only where there are several.
            column = f"Value #{chr(ord('A') + index)}" if len(panel.queries) > 1 else "Value"
            yield {
                "matcher": {"id": "byName", "options": column},
                "properties": [{"id": "displayName", "value": query.legend}],
            }


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {
            "colorMode": "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
            "wideLayout": True,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "name" if panel.text else "value_and_name",
        }
    if panel.kind == "table":
        return {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    return {
        "legend": {
            "calcs": ["lastNotNull"],
            "displayMode": "table",
            "placement": "right",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
