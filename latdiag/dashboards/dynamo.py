"""The dashboard of Dynamo."""

from __future__ import annotations

from latdiag.dashboards.beside import dashboard, gauges, quantiles
from latdiag.dashboards.ours import component
from latdiag.dashboards.panels import Panel, Query, Row
from latdiag.dashboards.promql import mean

_DYNAMO = 'model=~"$served"'
DYNAMO = dashboard(
    "dynamo",
    "Dynamo",
    "label_values(dynamo_frontend_requests_total, model)",
    (
        Row(
            "Side by side",
            (
                quantiles(
                    "Time to first token as Dynamo's frontend measures it",
                    "From the receipt in the frontend to the first reply of the engine. The"
                    " transfer of the KV cache after that reply is not in it.",
                    "dynamo_frontend_time_to_first_token_seconds",
                    _DYNAMO,
                ),
                Panel(
                    "Frontend and router beside latdiag",
                    "Mean seconds of the frontend's stages. The round trip to the worker contains"
                    " the worker's whole time until its first reply.",
                    "s",
                    (
                        component("frontend"),
                        component("gateway"),
                        Query(
                            mean("dynamo_frontend_stage_duration_seconds", by="stage"),
                            "Dynamo: {{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Interconnect beside Dynamo's estimate",
                    "Dynamo's value is what its router estimates for the transfer of the KV"
                    " cache; it does not measure the transfer.",
                    "s",
                    (
                        component("interconnect"),
                        Query(
                            mean("dynamo_component_router_kv_transfer_estimated_latency_seconds"),
                            "Dynamo: estimate",
                        ),
                    ),
                ),
                Panel(
                    "Way to the worker",
                    "Mean seconds from the frontend's send to the worker's receipt (by the wall"
                    " clocks of both hosts), and of the wait before the send.",
                    "s",
                    (
                        Query(
                            mean("dynamo_work_handler_network_transit_seconds"), "Dynamo: transit"
                        ),
                        Query(mean("dynamo_request_plane_queue_seconds"), "Dynamo: before send"),
                    ),
                ),
            ),
        ),
        Row(
            "Why",
            (
                gauges(
                    "Requests in the frontend",
                    "Dynamo counts a request as queued until its first reply: prefill is in it.",
                    "short",
                    {
                        "dynamo_frontend_inflight_requests": "in flight",
                        "dynamo_frontend_queued_requests": "queued",
                    },
                    _DYNAMO,
                ),
                gauges(
                    "Requests that wait in the router and in the workers",
                    "Requests held back before they reach an engine.",
                    "short",
                    {
                        "dynamo_frontend_router_queue_pending_requests": "router",
                        "dynamo_work_handler_queue_depth": "worker",
                    },
                ),
                Panel(
                    "KV cache blocks found by the router",
                    "Mean share of a prompt's blocks that the chosen worker already had.",
                    "percentunit",
                    (Query(mean("dynamo_component_router_kv_hit_rate"), "found"),),
                ),
                quantiles(
                    "Time between tokens as Dynamo's frontend measures it",
                    "Between two replies of the engine.",
                    "dynamo_frontend_inter_token_latency_seconds",
                    _DYNAMO,
                ),
            ),
        ),
    ),
)
