"""What a receiver must answer to a body, by protobuf's own parser.

An export is read by a schema in which spans, resources and scopes are bytes: what of it is
malformed breaks the whole; what is malformed inside of one breaks that one alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple


class Expected(NamedTuple):
    """``spans``: how many the body holds, None where it is refused whole; ``malformed``: of them,
    those that are refused for what they or their resource or scope are."""

    spans: int | None
    malformed: int = 0


@cache
def _shallow() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="shallow.proto", package="shallow")
    kinds = {
        "Scoped": {"scope": (1, None), "span": (2, None)},
        "Group": {"resource": (1, None), "scoped": (2, ".shallow.Scoped")},
        "Export": {"group": (1, ".shallow.Group")},
    }
    for name, fields in kinds.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            one = message.field.add(name=field, number=number, label=3, type=11 if kind else 12)
            if kind:
                one.type_name = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shallow.Export"))


def expected(body: bytes) -> Expected:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    def is_one(kind: Any, pieces: Any) -> bool:
        try:
            kind.FromString(b"".join(pieces))
        except DecodeError:
            return False
        return True

    try:
        export = _shallow().FromString(body)
    except DecodeError:
        return Expected(None)
    messages = [export, *export.group, *(s for g in export.group for s in g.scoped)]
    if any(_has_group(message) for message in messages):
        return Expected(None)  # no version of the protocol has groups
    spans = malformed = 0
    for group in export.group:
        for scoped in group.scoped:
            spans += len(scoped.span)
            if is_one(Resource, group.resource) and is_one(InstrumentationScope, scoped.scope):
                malformed += sum(not is_one(Span, [span]) for span in scoped.span)
            else:
                malformed += len(scoped.span)
    return Expected(spans, malformed)


def _has_group(message: Any) -> bool:
    from google.protobuf.unknown_fields import UnknownFieldSet

    return any(field.wire_type == 3 for field in UnknownFieldSet(message))
