"""What to do about the part that takes the time: a table of all that can be said, and its truth.

``pytest -s tests/unit/test_advice.py -k table`` prints the table to look through.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import numpy as np
import pytest

from latdiag.attribution.accounts import Rank
from latdiag.attribution.evidence import ServerState
from latdiag.attribution.parts import Parts, Source
from latdiag.cli import VERBS, latdiag
from latdiag.diagnosis import advice, splitting
from latdiag.diagnosis.costs import Costs
from latdiag.diagnosis.health import Health
from latdiag.model.caveats import CAVEATS
from latdiag.model.components import COMPONENTS
from latdiag.model.terms import AUDIT_RULES
from latdiag.report.page import Page, Span
from latdiag.stacks.catalogue import stacks
from latdiag.stacks.signal import TURNS
from latdiag.stacks.versions import has, numbers

from .test_verdict import APART, DECODE, EVEN, MS, QUEUE, of, parts

#: What the issue's example says: own step 12.9, batch 24, others' prefills 25 of 61.9 ms.
COSTS = Costs({"mean": 61.9 * MS, "p95_tail": 61.9 * MS}, 0.4 * MS, 0.018 * MS, 310.0 * MS, 8192,
              8192, 6000, several=False)  # fmt: skip
SPLIT = {"base": 12.9, "batch": 24.0, "interference": 25.0}
SLOW = Health(2.0, 200.0 * MS, 62 * MS, 1000)
PLACES = [(name, None) for name in COMPONENTS if name != "unattributed"]
PLACES += [("decode", leaf) for leaf in ("base", "batch", "interference", "stall", "mixed")]
PLACES += [("interconnect", "wait")]


def divided(component: str, leaf: str | None) -> Parts:
    """Where one part leads, and one leaf of it; ``mixed``: none of decode's."""
    share = {component: 0.8, "queue": 0.0} if component != "queue" else {"decode": 0.1}
    share |= {"decode": 0.2} if component not in ("queue", "decode") else {}
    found = parts(share, sources=APART)
    if leaf is None:
        return found
    whole = found.parts[component]
    if leaf == "mixed":
        total = sum(SPLIT.values())
        fine = {f"decode.{n}": np.rint(whole * (ms / total)).astype(np.int64)
                for n, ms in SPLIT.items()}  # fmt: skip
        return parts(share, sources=APART, leaves=fine)
    rest = "decode.base" if leaf != "base" else "decode.batch"
    if component == "interconnect":
        rest = "interconnect.kv"
    fine = {f"{component}.{leaf}": whole * 8 // 10}
    fine[rest] = whole - fine[f"{component}.{leaf}"]
    return parts(share, sources=APART, leaves=fine)


def versions_of(name: str) -> list[str | None]:
    """None, one that is new, and around each version that an option came with."""
    (stack,) = (each for each in stacks() if each.name == name)
    edges = {k.since for k in stack.knobs} | {k.until for k in stack.knobs} | {"99.0"}
    edges |= {switch.since for switch in stack.switches}
    before = {".".join(map(str, (*numbers(e)[:-1], max(0, numbers(e)[-1] - 1))))
              for e in edges if e}  # fmt: skip
    return [None, *sorted((edges | before) - {""}, key=numbers)]


def said() -> Iterator[tuple[str, str | None, str, str | None, str]]:
    """(component, leaf, stack, version, advice) for all that is reachable."""
    for component, leaf in PLACES:
        found = divided(component, leaf)
        for stack in ("", *(each.name for each in stacks())):
            for version in versions_of(stack) if stack else [None]:
                there = ((stack, version),) if stack else ()
                more: dict[str, Any] = {"probed": True, "stacks": there, "costs": COSTS}
                for kind in ({}, {"admitted": 16}, {"probed": False, "costs": None}):
                    text = of(found, health=SLOW, **(more | kind)).next
                    yield component, leaf, stack, version, text


@pytest.fixture(scope="module")
def table() -> list[tuple[str, str | None, str, str | None, str]]:
    return list(dict.fromkeys(said()))


def test_the_table_names_options_of_the_stack_and_its_version_alone(
    table: list[tuple[str, str | None, str, str | None, str]],
) -> None:
    knobs = [(stack.name, knob) for stack in stacks() for knob in stack.knobs]
    shown: dict[tuple[str, str | None, str], list[str]] = {}
    for component, leaf, stack, version, text in table:
        shown.setdefault((component, leaf, text), []).append(f"{stack or 'none'} {version or '?'}")
        if not stack:
            continue
        for name, knob in knobs:
            layer = next(each.layer for each in stacks() if each.name == name)
            mine = next(each.layer for each in stacks() if each.name == stack)
            title = next(each.title for each in stacks() if each.name == name)
            if f"{title}: {knob.flag}" in text:
                assert name == stack or layer != mine, (stack, text)
                if name == stack:
                    assert has(version, knob.since, knob.until) is not False, (version, text)
                    unsure = has(version, knob.since, knob.until) is None
                    assert not unsure or f"(from {knob.since} on)" in text
    for (component, leaf, text), whose in shown.items():
        where = f"{component}.{leaf}" if leaf else component
        titles = {stack.name: stack.title for stack in stacks()}
        sources = {k.source for n, k in knobs if f"{titles[n]}: {k.flag}" in text and k.source}
        print(f"{where} [{', '.join(whose[:4])}{'...' if len(whose) > 4 else ''}]: {text}"
              f" ({'; '.join(sorted(sources)) or 'no option'})")  # fmt: skip


def test_every_option_says_where_it_is_written_and_turns_what_advice_asks_for() -> None:
    braces = "".join(
        text for name, text in _sentences() if name.startswith(("advice", "splitting"))
    )
    asked = set(re.findall(r"\{(\w+)\}", braces)) - {"used", "evicted", "times", "n"}
    for stack in stacks():
        for knob in stack.knobs:
            assert knob.turns in TURNS and (knob.source or knob.turns == "flush")
            assert numbers(knob.since) or not knob.since
    assert asked <= TURNS
    assert {knob.turns for stack in stacks() for knob in stack.knobs} - {"flush"} <= asked


def test_no_sentence_is_longer_than_a_page_has_room_for(
    table: list[tuple[str, str | None, str, str | None, str]],
) -> None:
    for *_, text in table:
        assert "{" not in text and "  " not in text and "()" not in text, text
        assert text.endswith(".") and len(text) <= 600, (len(text), text)


# ---------------------------------------------------------------------- options of our own
def _sentences() -> Iterator[tuple[str, str]]:
    for module in (advice, splitting):
        for name, value in vars(module).items():
            for text in value.values() if isinstance(value, dict) else [value]:
                if isinstance(text, str):
                    yield f"{module.__name__.rpartition('.')[2]}.{name}", text
    for row in CAVEATS.values():
        yield row.code, row.text
        yield row.code, row.remedy
    for rule in AUDIT_RULES:
        yield rule.name, rule.remedy


def test_no_verb_is_advised_with_an_option_that_it_has_not() -> None:
    """``probe`` has no --workers, --connections or --tokenizer."""
    context = click.Context(latdiag)  # type: ignore[arg-type]
    checked = 0
    for name, text in _sentences():
        for verb, rest in re.findall(r"`latdiag (\w+)([^`]*)`", text):
            command = latdiag.get_command(context, verb)  # type: ignore[attr-defined]
            assert verb in VERBS and command is not None, (name, text)
            known = {opt for each in command.params for opt in each.opts}
            for option in re.findall(r"--[\w-]+", rest):
                checked += 1
                assert option in known, (name, option, text)
        for option, verb in re.findall(r"(--[\w-]+)[^.`]{0,12} of `latdiag (\w+)`", text):
            command = latdiag.get_command(context, verb)  # type: ignore[attr-defined]
            assert option in {opt for each in command.params for opt in each.opts}, text
    assert checked > 5


# ---------------------------------------------------------------------- effects
def test_decode_is_told_in_its_parts_with_what_each_would_bring() -> None:
    found = divided("decode", "mixed")
    text = of(found, health=SLOW, probed=True, costs=COSTS, stacks=(("vllm", "0.24.0"),)).next
    assert "TPOT 61.9 ms = others' prefills 25.0 ms + batch 24.0 ms + own step 12.9 ms." in text
    assert "chunks of about 2,048 tokens (vLLM: --max-num-batched-tokens)" in text
    assert "(vLLM: --kv-transfer-config) takes 25.0 ms out of TPOT" in text
    assert "at once (vLLM: --max-num-seqs) save 12.0 ms a token" in text


def test_chunks_that_are_small_already_are_not_made_smaller() -> None:
    small = replace(COSTS, chunk=512, pause=9.0 * MS)
    short = replace(COSTS, longest=300)
    for costs in (small, short, replace(COSTS, pause=0.0)):
        text = of(divided("decode", "interference"), health=SLOW, probed=True, costs=costs).next
        assert "chunks of" not in text and "servers of its own" in text


def test_a_server_that_slowed_down_is_not_blamed_on_prefills() -> None:
    """Its steps were learned when it was faster: what they leave is nobody's interference."""
    found = divided("decode", "interference")
    for since in (2.0, 0.5):
        said = of(found, health=replace(SLOW, since=since), probed=True, costs=COSTS)
        assert "prefill" not in said.next and "prefill" not in said.sentence
        assert f"{since:.1f} times as long" in said.next
    steady = of(found, health=SLOW, probed=True, costs=COSTS)
    assert "prefill" in steady.sentence


def test_guessing_ahead_is_not_advised_where_several_tokens_come_at_once() -> None:
    found = divided("decode", "base")
    for several in (False, True):
        text = of(found, health=SLOW, probed=True, costs=replace(COSTS, several=several)).next
        assert ("speculative" in text) == (not several)


def test_a_limit_that_was_seen_is_named_with_what_raising_it_costs() -> None:
    text = of(divided("queue", None), probed=True, admitted=16, costs=COSTS,
              stacks=(("vllm", "0.24.0"),)).next  # fmt: skip
    assert text.startswith("Raise the limit of 16 requests at once (vLLM: --max-num-seqs)")
    assert "16 more streams make a step about 6.40 ms longer" in text


def test_a_limit_that_was_seen_is_named_though_the_queue_does_not_stand_alone() -> None:
    merged = {"queue": Source("E", "laws", ("queue", "prefill"))}
    found = parts({"decode": 0.2}, sources=merged)
    text = of(found, probed=True, admitted=16, stacks=(("vllm", "0.24.0"),)).next
    assert "runs 16 requests at once" in text and "limit (vLLM: --max-num-seqs)" in text
    assert "--otlp" in text, "and what would take the class apart"
    assert "at once" not in of(found, probed=True).next


@pytest.mark.parametrize("used", [0.4, 0.97])
def test_a_full_kv_cache_is_no_limit_to_raise(used: float) -> None:
    state = ServerState(5, used, 16, 48, 3)
    text = of(divided("queue", None), probed=True, admitted=16, state=state).next
    assert ("--max-num-seqs" in text) == (used < 0.9)
    assert ("97 % full, with 3 preemptions" in text) == (used > 0.9)


def test_what_was_measured_is_not_to_be_measured_again() -> None:
    source = {"gateway": Source("B", "metrics")}
    measured = of(parts({"gateway": 0.8, "decode": 0.2}, sources=APART | source),
                  stacks=(("litellm", None),)).next  # fmt: skip
    assert "--behind" not in measured and "LiteLLM proxy: --num_workers" in measured
    behind = of(parts({"gateway": 0.8, "decode": 0.2}, sources=APART),
                given=frozenset({Rank.BEHIND})).next  # fmt: skip
    assert "--behind" not in behind
    alone = of(divided("decode", "mixed"), probed=True, costs=COSTS, in_flight=frozenset({1})).next
    assert "--concurrency 1" not in alone
    assert "network time" not in of(parts({"network": 0.8, "decode": 0.2}, sources=APART)).next


@pytest.mark.parametrize("place", [("decode", "mixed"), ("queue", None), ("prefill", None)])
def test_servers_of_a_provider_have_no_options(place: tuple[str, str | None]) -> None:
    text = of(divided(*place), probed=True, costs=COSTS, stacks=(("groq", None),)).next
    assert text.startswith("A provider runs these servers") and "--" not in text


def test_what_an_engine_cannot_do_is_not_advised() -> None:
    found = divided("decode", "interference")
    there = (("llama_server", None),)
    text = of(found, health=SLOW, probed=True, costs=COSTS, stacks=there).next
    assert "servers of its own" not in text and "llama.cpp server: --batch-size" in text
    assert "processes" not in of(divided("frontend", None), stacks=there).next


def test_workers_options_are_named_once() -> None:
    both = (("dynamo", "1.6.1"), ("vllm", None))
    text = of(divided("queue", None), probed=True, admitted=16, stacks=both).next
    assert "vLLM: --max-num-seqs" in text and "NVIDIA Dynamo" not in text
    text = of(divided("queue", None), probed=True, admitted=16, stacks=both[:1]).next
    assert "NVIDIA Dynamo: --max-num-seqs (dynamo.vllm)" in text


def test_no_leader_is_the_model_s_own_pace_beside_a_queue() -> None:
    whole = parts({"decode": 0.64, "queue": 0.36}).parts["decode"]
    found = parts({"decode": 0.64, "queue": 0.36}, leaves={"decode.base": whole}, sources=APART)
    text = of(found, health=Health(2.0, 200.0 * MS, 15 * MS, 1000)).next
    assert "own speed" not in text and "only shorter replies" not in text


def test_of_versions_that_come_with_an_option() -> None:
    assert has("0.24.0", "0.27") is False and has("0.27.1", "0.27") is True
    assert has(None, "0.27") is None and has("nightly", "0.27") is None and has(None, "") is True
    assert has("1.0rc2", "", "1.0") is False and has("v0.9", "", "1.0") is True


def test_decode_alone_is_the_reason_for_no_split() -> None:
    assert of(parts(DECODE), probed=True).next.startswith("No single cause makes up half")


# ---------------------------------------------------------------------- whole sentences
def test_a_probe_that_learned_nothing_advises_no_probe() -> None:
    told = of(parts(QUEUE), of_probe=True)
    assert "latdiag probe" not in told.next and "latdiag probe" in of(parts(QUEUE)).next
    assert "longer measurement" not in of(parts(EVEN), of_probe=True).sure
    names = [name for name in COMPONENTS if name not in ("client", "unattributed")]
    for n in range(2, len(names) + 1):
        for members in itertools.combinations(names, n):
            text = splitting.splitting(members, {Rank.BEHIND}, (), to_probe=False)
            assert "latdiag probe" not in text and text.endswith("."), (members, text)


@pytest.mark.parametrize("room", range(1, 8))
def test_a_screen_shows_whole_sentences(
    table: list[tuple[str, str | None, str, str | None, str]], room: int
) -> None:
    for text in {text for *_, text in table}:
        page = Page(True)
        page.clipped(Span("Next:"), text, room)
        shown = " ".join("".join(span.text for span in line).strip() for line in page.lines)
        assert len(page.lines) <= room
        first = re.split(r"(?<=[.?]) (?=[A-Z])", text)[0]
        if len(f"Next: {first}") <= 79 * room - 24 * room:
            assert shown.endswith(".") and not shown.endswith("..."), shown
        assert text.startswith(shown.removeprefix("Next: ").removesuffix("..."))
