"""Lengths, prompts and bodies: the same from any process, and as long as asked for."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import random
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.dialects import DIALECTS
from latdiag.load.work.lengths import Lengths
from latdiag.load.work.prompts import (
    TOKEN_IDS,
    WORDS,
    Calibration,
    TokenIds,
    calibrate,
    tokenizer_words,
    words_of_one_token,
)
from latdiag.load.work.workload import Workload, parse_overlay
from latdiag.model.errors import UsageFault

CHAT = DIALECTS["openai-chat"]
COMPLETIONS = DIALECTS["openai-completions"]
#: Texts of so many words tell words per token and overhead apart.
CALIBRATION_WORDS = (16, 128, 384)


def workload(dialect=COMPLETIONS, isl="64", osl="8", seed=1, **more) -> Workload:
    return Workload(
        dialect, "m", Lengths.parse(isl), Lengths.parse(osl) if osl else None, seed, **more
    )


def sent(load: Workload, index: int) -> dict:
    return json.loads(load.body(index))


def text_of(load: Workload, index: int) -> str:
    return sent(load, index)["messages"][0]["content"]


def test_input_and_output_lengths_are_independent():
    load = workload(isl="uniform:1-1000", osl="uniform:1-1000")
    pairs = [load.wanted(i) for i in range(2000)]
    assert abs(statistics.correlation(*zip(*pairs, strict=True))) < 0.1


# Token ids -------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(0, 2**48), st.integers(0, 10**6), st.integers(0, 3500))
def test_token_ids_are_exactly_as_many_as_wanted(isl, seed, index, shared):
    load = workload(isl=str(isl), seed=seed, shared_prefix=shared)
    prompt = sent(load, index)["prompt"]
    assert len(prompt) == isl
    assert all(i in TOKEN_IDS for i in prompt)
    assert load.isl_source == "ids" and not load.wants_calibration


def test_the_vocabulary_can_be_narrowed_and_is_used_whole():
    load = workload(isl="500", ids=TokenIds(range(7, 10)))
    assert set(sent(load, 0)["prompt"]) == {7, 8, 9}


def common_start(a, b) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_prompts_part_before_a_block_of_a_prefix_cache_is_full(dialect):
    def tokens(load, index):
        body = sent(load, index)
        return body["prompt"] if dialect is COMPLETIONS else text_of(load, index).split(" ")

    load = workload(dialect, isl="32")
    prompts = sorted(tokens(load, i) for i in range(3000))
    shared = max(common_start(a, b) for a, b in itertools.pairwise(prompts))
    assert shared < 8  # the smallest blocks in use hold 16 tokens
    other = workload(dialect, isl="32", seed=2)
    assert common_start(tokens(load, 0), tokens(other, 0)) < 8


def test_a_shared_prefix_is_the_same_for_all_and_not_for_another_seed():
    load = workload(isl="uniform:100-200", shared_prefix=64)
    prompts = [sent(load, i)["prompt"] for i in range(50)]
    assert len({tuple(p[:64]) for p in prompts}) == 1
    assert len({tuple(p[64:72]) for p in prompts}) == 50
    other = sent(workload(isl="200", shared_prefix=64, seed=2), 0)["prompt"]
    assert other[:64] != prompts[0][:64]


def test_a_prefix_longer_than_the_prompt_leaves_it_one_token_of_its_own():
    load = workload(isl="10", shared_prefix=64)
    prompts = [sent(load, i)["prompt"] for i in range(20)]
    assert len({tuple(p[:9]) for p in prompts}) == 1
    assert len({p[9] for p in prompts}) > 1


def test_not_unique_means_one_text_over_and_over():
    load = workload(isl="choice:50,100", unique=False)
    prompts = sorted((sent(load, i)["prompt"] for i in range(20)), key=len)
    assert all(prompts[-1][: len(p)] == p for p in prompts)
    assert {len(p) for p in prompts} == {50, 100}


# Text ------------------------------------------------------------------------------------------


def test_the_words_are_as_many_as_a_byte_tells_apart():
    assert len(set(WORDS)) == len(WORDS) == 256
    assert all(w.isalpha() and w.isascii() and w.islower() for w in WORDS)


def test_text_of_the_wanted_length_once_the_template_is_known():
    def server(text: str) -> int:  # one token a word, and a template
        return len(text.split(" ")) + 23

    load = workload(CHAT, isl="uniform:50-600")
    assert load.wants_calibration and load.isl_source == "text"
    points = []
    for i, words in enumerate(CALIBRATION_WORDS):
        body = json.loads(load.calibrating_body(words, i))
        assert body["max_tokens"] == 1
        points.append((words, server(body["messages"][0]["content"])))
    fitted = calibrate(points)
    assert (fitted.words_per_token, fitted.overhead) == pytest.approx((1.0, 23.0))
    load = replace(load, calibration=calibrate(points))
    assert not load.wants_calibration
    for i in range(50):
        assert server(text_of(load, i)) == load.wanted(i)[0]


def test_calibration_where_words_are_several_tokens():
    rng = random.Random(1)
    cost = {word: rng.choice((1, 2, 3)) for word in WORDS}

    def server(text: str) -> int:
        return sum(cost[w] for w in text.split(" ")) + 11

    load = workload(CHAT, isl="500")
    points = []
    for i, words in enumerate(CALIBRATION_WORDS):
        text = json.loads(load.calibrating_body(words, i))["messages"][0]["content"]
        points.append((words, server(text)))
    load = replace(load, calibration=calibrate(points))
    got = [server(text_of(load, i)) for i in range(100)]
    assert statistics.fmean(got) == pytest.approx(500, rel=0.05)
    # More replies make it better.
    for i in range(100, 140):
        text = text_of(load, i)
        points.append((len(text.split(" ")), server(text)))
    load = replace(load, calibration=calibrate(points))
    again = [server(text_of(load, i)) for i in range(100)]
    assert statistics.fmean(again) == pytest.approx(500, rel=0.02)


@given(st.integers(1, 6), st.integers(0, 200), st.integers(1, 5000))
def test_a_line_is_found_exactly(tokens_per_word, overhead, tokens):
    points = [(w, w * tokens_per_word + overhead) for w in CALIBRATION_WORDS]
    found = calibrate(points)
    got = found.words(tokens) * tokens_per_word + overhead
    assert abs(got - tokens) <= tokens_per_word or found.words(tokens) == 1


def test_calibration_with_little_or_impossible_evidence():
    assert calibrate([]) is None
    assert calibrate([(10, 30), (10, 32)]) == Calibration(1.0, 21.0)
    assert calibrate([(10, 30)], words_per_token=1.0) == Calibration(1.0, 20.0)
    assert calibrate([(10, 30), (100, 30)]) is None
    assert calibrate([(10, 300), (100, 30)]) is None
    assert calibrate([(10, 15), (100, 205)]) == Calibration(110 / 220, 0.0)


def test_calibrating_prompts_meet_no_other_prompt():
    load = workload(CHAT, isl="100")
    trial = json.loads(load.calibrating_body(100, 0))["messages"][0]["content"]
    assert common_start(trial.split(" "), text_of(load, 0).split(" ")) < 8


def test_a_shared_prefix_of_text():
    load = workload(CHAT, isl="100", shared_prefix=40, calibration=Calibration(0.5, 20))
    prompts = [text_of(load, i).split(" ") for i in range(20)]
    assert {len(p) for p in prompts} == {40}  # (100 - 20) * 0.5
    assert len({tuple(p[:20]) for p in prompts}) == 1
    assert len({tuple(p[20:26]) for p in prompts}) == 20
    # Where the prefix would take all: calibration may turn 99 of 100 tokens into every word.
    tight = replace(load, shared_prefix=99, calibration=Calibration(0.1, 0))
    last = [text_of(tight, i).split(" ")[9] for i in range(20)]
    assert len(set(last)) > 1


# A named tokenizer -----------------------------------------------------------------------------


def count_known(known: set[str]):
    return lambda text: sum(1 if w in known else 3 for w in text.split(" ") if w)


def test_only_words_of_one_token_are_used():
    known = set(WORDS[10:60])
    words = words_of_one_token(count_known(known), "t")
    assert set(words.table) == known and len(words.table) == 256
    assert words.lead == WORDS[0]  # three tokens here: part of the overhead that is measured
    load = workload(CHAT, isl="uniform:30-300", words=words)
    assert load.isl_source == "tokenizer" and load.wants_calibration
    trial = json.loads(load.calibrating_body(16, 0))["messages"][0]["content"]
    template = 24
    points = [(16, count_known(known)(trial) + template)]
    load = replace(load, calibration=calibrate(points, words_per_token=1.0))
    for prefix in (0, 1, 20):
        led = replace(load, shared_prefix=prefix)
        for i in range(30):
            assert count_known(known)(text_of(led, i)) + template == load.wanted(i)[0]
    texts = [words.make(1, "prompt", i, 10, 9).split(" ") for i in range(20)]
    assert {len(text) for text in texts} == {10}
    assert len({tuple(text[:9]) for text in texts}) == 1
    assert len({text[9] for text in texts}) > 1


def test_a_tokenizer_that_knows_too_few_words_is_refused():
    with pytest.raises(UsageFault, match=r"tiny\.json"):
        words_of_one_token(count_known(set(WORDS[:31])), "tiny.json")


def test_a_tokenizer_whose_tokens_reach_over_words_is_refused():
    def greedy(text: str) -> int:  # joins every 20th pair
        n = len([w for w in text.split(" ") if w])
        return n - n // 20

    with pytest.raises(UsageFault):
        words_of_one_token(greedy, "t")


def test_without_the_package_a_tokenizer_file_is_a_usage_fault(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageFault, match="not installed") as fault:
        tokenizer_words(tmp_path / "tokenizer.json")
    assert "latdiag[tokenizer]" in fault.value.remedy


def test_a_real_tokenizer_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {"[UNK]": 0} | {word: i for i, word in enumerate(WORDS[:100], 1)}
    model = tokenizers.models.WordLevel(vocab, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    for place in (path, tmp_path):
        text = tokenizer_words(place).make(1, "prompt", 0, 77, 7)
        assert len(made.encode(text).ids) == 77
    path.write_text("{}")
    with pytest.raises(UsageFault, match="not a tokenizer"):
        tokenizer_words(path)
    with pytest.raises(UsageFault, match="cannot be read"):
        tokenizer_words(tmp_path / "none.json")


# Output lengths, extras, overlay ---------------------------------------------------------------


def test_output_length_is_exact_with_the_extras():
    load = workload(osl="uniform:5-50", extras=frozenset({"min_tokens", "ignore_eos"}))
    for i in range(20):
        body = sent(load, i)
        assert body["max_tokens"] == body["min_tokens"] == load.wanted(i)[1]
        assert body["ignore_eos"] is True


def test_output_length_may_be_left_to_the_model():
    load = workload(osl=None, extras=frozenset({"min_tokens"}))
    assert load.wanted(0) == (64, None)
    assert not {"max_tokens", "min_tokens"} & sent(load, 0).keys()


def test_the_users_own_output_length_counts():
    load = workload(extras=frozenset({"min_tokens"}), overlay={"max_tokens": 33, "top_p": 0.5})
    assert load.wanted(0) == (64, 33)
    body = sent(load, 0)
    assert (body["max_tokens"], body["min_tokens"], body["top_p"]) == (33, 33, 0.5)


def test_extras_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match="unknown extras"):
        workload(extras=frozenset({"ignore_oes"}))


def test_token_ids_can_be_given_up_but_not_forced():
    text = workload(token_ids=False)
    assert text.isl_source == "text"
    assert isinstance(sent(text, 0)["prompt"], str)
    with pytest.raises(UsageFault):
        workload(CHAT, token_ids=True)


def test_a_negative_prefix_is_refused():
    with pytest.raises(UsageFault):
        workload(shared_prefix=-1)


@pytest.mark.parametrize("text", ["", "nope", "[1]", '"x"', '{"a": NaN}', "[" * 100_000])
def test_a_body_that_is_no_object_is_refused_without_repeating_it(text):
    with pytest.raises(UsageFault) as fault:
        parse_overlay(text)
    assert "nope" not in str(fault.value)
    assert fault.value.__context__ is None or fault.value.__suppress_context__


def test_an_overlay_is_read():
    assert parse_overlay('{"a": {"b": null}}') == {"a": {"b": None}}


# The same everywhere ---------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_another_process_makes_the_same_bodies(dialect, tmp_path):
    load = workload(dialect, isl="lognormal:80,0.5", osl="normal:20,5", shared_prefix=16)
    frozen = tmp_path / "load"
    frozen.write_bytes(pickle.dumps(load))
    code = (
        "import pickle, sys, hashlib\n"
        f"load = pickle.loads(open({str(frozen)!r}, 'rb').read())\n"
        "print(hashlib.sha256(b''.join(load.body(i) for i in range(40))).hexdigest())\n"
    )
    # Another hash seed: nothing may hang on the order of a set.
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = hashlib.sha256(b"".join(load.body(i) for i in range(40))).hexdigest()
    assert seen == {here + "\n"}
