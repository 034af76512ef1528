"""Amazon API Gateway: each reply has the id of its request, but no times.

repost.aws/knowledge-center/collect-api-gateway-extended-request-ids
"""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Stack

STACK = Stack(
    name="aws_api_gateway",
    title="Amazon API Gateway",
    layer="gateway",
    provenance="documented",
    versions="hosted, 2026",
    signals=(),
    marks=(Mark("header", r"(x-amz-apigw-id|apigw-requestid): .*"),),
)
