"""Every stack against recordings of it. Stacks are found by themselves: a new one is tested, and
one that states what its recordings do not hold fails, without a line added here."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from latdiag.model.components import LEAVES
from latdiag.report.stacks_page import markdown
from latdiag.stacks.catalogue import METRIC_KINDS, built_in, selector
from latdiag.stacks.detect import (
    Signs,
    detect,
    of_headers,
    of_models,
    of_reply,
    of_version,
)
from latdiag.stacks.signal import HIDDEN, Signal, Stack

from .stack_identities import NS, contradictions, named
from .stack_recordings import CAPTURES, at_path, recording

ROOT = Path(__file__).parents[2]
STACKS = built_in()
CAPTURED = [stack for stack in STACKS if stack.provenance == "captured"]
KINDS = {"span", "attribute", "reply", "header", *METRIC_KINDS}


def _id(stack: Stack) -> str:
    return stack.name


def _rows() -> list[tuple[Stack, Signal]]:
    return [(stack, signal) for stack in CAPTURED for signal in stack.signals]


def test_all_stacks_are_there() -> None:
    asked = {"vllm", "sglang", "sglang_router", "dynamo", "envoy", "transformers", "llamacpp"}
    asked |= {"litellm"}
    assert asked <= {stack.name for stack in CAPTURED}


@pytest.mark.parametrize("stack", STACKS, ids=_id)
def test_where_it_is_known_from_is_said(stack: Stack) -> None:
    assert stack.provenance in ("captured", "documented")
    assert stack.layer in ("gateway", "engine")
    assert stack.title and stack.versions and stack.marks
    assert bool(stack.captures) == (stack.provenance == "captured")
    for folder in stack.captures:
        assert list((CAPTURES / folder).rglob("*.gz")), f"no recording in {folder}"


@pytest.mark.parametrize("stack", STACKS, ids=_id)
def test_its_signals_are_well_formed(stack: Stack) -> None:
    names = {signal.name for signal in stack.signals}
    spans = {signal.name for signal in stack.signals if signal.kind == "span"}
    leaves = {leaf.name for leaf in LEAVES}
    for signal in stack.signals:
        units = set(signal.unit.split("|"))  # of a duration whose unit documents disagree on
        assert signal.kind in KINDS and units <= {*NS, "1", "B"}, signal.name
        assert signal.name.startswith(f"{stack.name}."), signal.name
        # What no phase claims may be nobody's: where it can only be a span that was lost.
        assert signal.rest in {"", "unattributed.rest", *signal.covers}, signal.name
        assert signal.covers <= leaves, signal.name
        assert not signal.covers or units <= set(NS), f"{signal.name} covers time without a unit"
        assert (signal.kind == "attribute") <= bool(signal.bearer), signal.name
        assert not signal.bearer or signal.kind in ("attribute", "reply"), signal.name
        if signal.kind == "attribute":
            assert signal.bearer in spans, signal.name
            assert (signal.starts is None) != (signal.ends is None), signal.name
        for place in filter(None, (signal.starts, signal.ends)):
            assert place.edge in ("start", "end")
            assert place.signal in {"", *names}, f"{signal.name} lies by {place.signal}"
    for switch in stack.switches:
        assert switch.flag and switch.signals
        assert set(switch.signals) <= names, switch.what


@pytest.mark.parametrize("stack", STACKS, ids=_id)
def test_no_two_attributes_of_a_span_claim_the_same(stack: Stack) -> None:
    """Equal ``covers`` in one role mean the same interval: then both begin or end alike."""
    attributes = [signal for signal in stack.signals if signal.kind == "attribute"]
    for one, other in combinations(attributes, 2):
        shared = set(one.roles or ("",)) & set(other.roles or ("",))
        if one.bearer == other.bearer and shared and one.covers == other.covers:
            assert (one.starts, one.ends) == (other.starts, other.ends), (one.name, other.name)


@pytest.mark.parametrize(
    ("stack", "signal"),
    _rows(),
    ids=lambda value: value.name if isinstance(value, Stack | Signal) else None,
)
def test_a_recording_holds_it(stack: Stack, signal: Signal) -> None:
    """With the type and a length that the unit makes plausible; or it is said to be documented
    only, and then a reason stands beside it or the stack's switches name it."""
    if signal.documented:
        switched = {name for switch in stack.switches for name in switch.signals}
        assert signal.note or signal.name in switched, "documented: say when it is there"
        return
    values = _values(stack, signal)
    assert values, f"{signal.foreign} is in no recording of {stack.name}"
    if signal.covers:
        longest_ns = max(values) * NS[signal.unit]
        assert 1e3 <= longest_ns <= 3.6e12, f"{longest_ns:.0f} ns is no {signal.unit}"
    assert min(values) >= 0


def _values(stack: Stack, signal: Signal) -> list[float]:
    """What the recordings hold of ``signal``: durations, levels, counts; histograms' means."""
    found: list[float] = []
    for folder in stack.captures:
        here = recording(folder)
        if signal.kind == "span":
            found += [float(span.duration_ns) for span in here.spans if named(signal, span)]
        elif signal.kind == "attribute":
            bearers = [s for s in stack.signals if s.name == signal.bearer]
            for span in here.spans:
                value = span.attributes.get(signal.foreign)
                if isinstance(value, str):  # Dynamo's numbers are texts
                    value = float(value)
                if isinstance(value, int | float) and any(named(b, span) for b in bearers):
                    found.append(float(value))
        elif signal.kind == "reply":
            values = (at_path(reply, signal.foreign) for reply in here.replies)
            found += [float(v) for v in values if isinstance(v, int | float)]
        elif signal.kind == "header":
            found += [float(v) for name, v in here.headers if name == signal.foreign]
        else:
            found += _of_metrics(folder, signal)
    return found


def _of_metrics(folder: str, signal: Signal) -> list[float]:
    family, labels = selector(signal.foreign)
    found = []
    for exposition in recording(folder).expositions:
        if exposition.kinds.get(family) != signal.kind:
            assert family not in exposition.kinds, f"{family} is no {signal.kind}"
            continue
        if signal.kind == "histogram":
            total, count = exposition.sums(family, labels)
            found += [total / count] if count else []
        elif exposition.has(family, labels):
            found.append(exposition.total(family, labels))
    return found


# ------------------------------------------------------------------ what recordings contradict


@pytest.mark.parametrize("stack", CAPTURED, ids=_id)
def test_recordings_contradict_nothing(stack: Stack) -> None:
    assert contradictions(stack) == []


#: What each name means, typed here by hand from the documents of the stacks, never from the files
#: under test: (name, role) and the leaf that the interval is of; "+" where it contains others'.
GOLDEN = {
    ("gen_ai.latency.time_in_queue", "unified"): "queue.admission",
    ("gen_ai.latency.time_in_queue", "prefill"): "queue.admission",
    ("gen_ai.latency.time_in_queue", "decode"): "interconnect.kv",
    ("gen_ai.latency.time_in_model_prefill", "unified"): "prefill.own",
    ("gen_ai.latency.time_in_model_decode", "unified"): "decode.base",
    ("vllm:request_queue_time_seconds", "unified"): "queue.admission",
    ("vllm:request_queue_time_seconds", "decode"): "interconnect.kv",
    ("vllm:request_prefill_time_seconds", "unified"): "prefill.own",
    ("vllm:request_decode_time_seconds", "unified"): "decode.base",
    ("vllm:inter_token_latency_seconds", "unified"): "decode.base",
    ("vllm:nixl_xfer_time_seconds", "decode"): "interconnect.kv",
    ("metrics.queue_time_ms", "unified"): "queue.admission",
    ("metrics.time_to_first_token_ms", "unified"): "prefill.own",
    ("metrics.generation_time_ms", "unified"): "decode.base",
    ("prefill_waiting", "unified"): "queue.admission",
    ("prefill_forward", "unified"): "prefill.own",
    ("decode_waiting", "unified"): "decode.interference",
    ("decode_waiting", "decode"): "queue.admission",
    ("decode_forward", "unified"): "decode.base",
    ("tokenize", "unified"): "frontend.parse",
    ("prefill_transfer_kv_cache", "prefill"): "interconnect.kv",
    ("prefill_bootstrap", "prefill"): "interconnect.wait",
    ("decode_bootstrap", "decode"): "interconnect.wait",
    ("decode_transferred", "decode"): "interconnect.wait+",
    ('sglang:queue_time_seconds{engine_type="unified"}', "unified"): "queue.admission",
    (
        'sglang:per_stage_req_latency_seconds{engine_type="unified",stage="prefill_forward"}',
        "unified",
    ): "prefill.own",
    ("meta_info.queue_time", "unified"): "queue.admission",
    ("nvext.timing.prefill_wait_time_ms", "unified"): "gateway.proc+",
    ("nvext.timing.prefill_time_ms", "unified"): "prefill.own+",
    ('dynamo_frontend_stage_duration_seconds{stage="preprocess"}', "unified"): "frontend.parse",
    ("dynamo_router_overhead_total_ms", "unified"): "gateway.proc",
    ("kv_router.select_worker", "unified"): "gateway.proc",
    ("ingress", "unified"): "gateway.proc+",
    ("router ", "unified"): "frontend.parse+",
    ("agent_xfer_time_us", "unified"): "interconnect.kv",
    ("timings.prompt_ms", "unified"): "prefill.own",
    ("timings.predicted_ms", "unified"): "decode.base",
}
#: What covers no time, whatever its name suggests.
NO_TIME = {
    "nvext.timing.kv_transfer_estimated_latency_ms",
    "dynamo_component_router_kv_transfer_estimated_latency_seconds",
    "x-envoy-upstream-service-time",
    "smg_http_request_duration_seconds",
}
#: Named so that one would take them for what they are not: no stack may read them.
TRAPS = {
    "sglang": {"gen_ai.latency.time_in_model_prefill", "gen_ai.latency.time_in_queue"},
    "vllm": {"gen_ai.latency.time_in_scheduler", "gen_ai.latency.time_in_model_forward"},
    "dynamo": {"dynamo_work_handler_network_transit_seconds"},
}


def _golden_faults(stacks: tuple[Stack, ...]) -> set[tuple[str, str]]:
    means = {
        (signal.foreign, role): signal.rest + "+" * _is_wide(signal)
        for stack in stacks
        for signal in stack.signals
        for role in (signal.roles or ("unified", "prefill", "decode"))
    }
    return {key for key, leaf in GOLDEN.items() if means.get(key) != leaf}


def _is_wide(signal: Signal) -> bool:
    return len({leaf.partition(".")[0] for leaf in signal.covers - HIDDEN}) > 1


def test_names_mean_what_the_documents_say() -> None:
    assert _golden_faults(STACKS) == set()
    by_foreign = {signal.foreign: signal for stack in STACKS for signal in stack.signals}
    assert all(not by_foreign[name].covers for name in NO_TIME)
    for stack in STACKS:
        assert not TRAPS.get(stack.name, set()) & {s.foreign for s in stack.signals}


# ------------------------------------------------------------------ mutations


def _swaps(stack: Stack) -> list[tuple[str, str]]:
    """Pairs of names of one kind that the stack could confuse: they cover different times, in a
    role that both have."""
    timed = [s for s in stack.signals if s.covers and not s.documented]
    pairs = set()
    for one, other in combinations(timed, 2):
        roles = not one.roles or not other.roles or set(one.roles) & set(other.roles)
        alike = (
            one.kind == other.kind and one.bearer == other.bearer and one.foreign != other.foreign
        )
        if alike and roles and one.covers - HIDDEN != other.covers - HIDDEN:
            pairs.add((one.foreign, other.foreign))
    return sorted(pairs)


def _swapped(stack: Stack, pair: tuple[str, str]) -> Stack:
    other = dict((pair, pair[::-1]))
    signals = tuple(replace(s, foreign=other.get(s.foreign, s.foreign)) for s in stack.signals)
    return replace(stack, signals=signals)


#: Foreign names that the recordings alone must tell from each other, without the golden table.
TOLD_APART = {
    "vllm": re.compile(r"gen_ai\.latency\..*|vllm:(e2e|time_to|request_decode).*"),
    "sglang": re.compile(r"(prefill|decode)_(forward|waiting)|.*(e2e_req|time_to_first).*"),
}


def test_swapped_names_do_not_cancel_out() -> None:
    """Two names swapped in a stack: the golden table or the recordings contradict it."""
    known = {name for name, _ in GOLDEN}
    tried = 0
    for stack in CAPTURED:
        others = tuple(each for each in STACKS if each.name != stack.name)
        for pair in _swaps(stack):
            if known & set(pair):
                tried += 1
                mutant = _swapped(stack, pair)
                caught = _golden_faults((*others, mutant)) or contradictions(mutant)
                assert caught, f"{stack.name}: {pair} swapped, and nothing fails"
    assert tried > 100


@pytest.mark.parametrize("name", sorted(TOLD_APART))
def test_recordings_alone_tell_the_main_ones_apart(name: str) -> None:
    stack = next(each for each in CAPTURED if each.name == name)
    told = TOLD_APART[name]
    pairs = [p for p in _swaps(stack) if told.fullmatch(p[0]) and told.fullmatch(p[1])]
    assert len(pairs) >= 5
    missed = [pair for pair in pairs if not contradictions(_swapped(stack, pair))]
    assert missed == []


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_wrong_unit_is_contradicted(unit: str) -> None:
    stack = next(each for each in CAPTURED if each.name == "vllm")
    for name in {s.foreign for s in stack.signals if s.kind == "attribute"}:
        signals = tuple(replace(s, unit=unit) if s.foreign == name else s for s in stack.signals)
        assert contradictions(replace(stack, signals=signals)), f"{name} in {unit}"


# ------------------------------------------------------------------ detection


def _signs(folder: str) -> Signs:
    here = recording(folder)
    return Signs(
        models=frozenset().union(*map(of_models, here.models)),
        headers=of_headers(here.headers),
        metrics=frozenset(name for each in here.expositions for name in each.kinds),
        scopes=frozenset(span.scope for span in here.spans),
        services=frozenset(span.service for span in here.spans),
        spans=frozenset(span.name for span in here.spans),
        replies=frozenset().union(*map(of_reply, here.replies)),
        versions=frozenset().union(*map(of_version, here.versions)),
    )


#: Folders in which another stack speaks too: Envoy stands before vLLM, and the workers of the
#: recorded Dynamo expose an engine's metrics.
ALSO = {"envoy-1.40-vllm": {"vllm"}, "dynamo-1.6.1": {"vllm"}}


@pytest.mark.parametrize("folder", sorted({f for stack in CAPTURED for f in stack.captures}))
def test_a_stack_is_found_by_its_recording(folder: str) -> None:
    own = {stack.name for stack in CAPTURED if folder in stack.captures}
    found = detect(_signs(folder), STACKS)
    assert {one.stack.name for one in found} == own | ALSO.get(folder, set())
    layers = [one.stack.layer for one in found]
    assert layers == sorted(layers, key=["gateway", "engine"].index)


#: The recorded client of Dynamo sent no x-request-id.
UNRECORDED_KEYS = {("dynamo", "x_request_id")}


@pytest.mark.parametrize("stack", CAPTURED, ids=_id)
def test_its_keys_roles_and_texts_are_in_a_recording(stack: Stack) -> None:
    spans = [span for folder in stack.captures for span in recording(folder).spans]
    seen = {
        name: {str(s.attributes[name]) for s in spans if name in s.attributes}
        for name in {n for span in spans for n in span.attributes}
    }
    for key in stack.keys:
        re.compile(key.ending)
        if (stack.name, key.attribute) not in UNRECORDED_KEYS:
            assert seen.get(key.attribute), f"no span bears {key.attribute}"
    for role in stack.roles:
        assert any(span.name.startswith(role.span) for span in spans), role
    for rank in stack.ranks:
        assert rank in seen


# ------------------------------------------------------------------ the documents


def test_the_documents_have_the_table_as_rendered() -> None:
    """``latdiag stacks --markdown`` is its source."""
    assert markdown(STACKS) in (ROOT / "docs" / "stacks.md").read_text(encoding="utf-8")
