"""The user's own prompts: every form, and every line that is none."""

from __future__ import annotations

import json

import pytest

from latdiag.load.dialects import DIALECTS
from latdiag.load.work.lengths import Lengths
from latdiag.load.work.promptfile import LINE_LIMIT, read_prompts
from latdiag.load.work.workload import Workload
from latdiag.model.errors import LocalFault, UsageFault

CHAT = DIALECTS["openai-chat"]
COMPLETIONS = DIALECTS["openai-completions"]


def workload(dialect=COMPLETIONS, isl="64", osl="8", seed=1, **more) -> Workload:
    return Workload(
        dialect, "m", Lengths.parse(isl), Lengths.parse(osl) if osl else None, seed, **more
    )


def sent(load: Workload, index: int) -> dict:
    return json.loads(load.body(index))


def text_of(load: Workload, index: int) -> str:
    return sent(load, index)["messages"][0]["content"]


def write(tmp_path, *lines):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(
        b"".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    )
    return path


def test_a_file_of_prompts_in_all_forms(tmp_path):
    path = write(
        tmp_path,
        b"\xef\xbb\xbf",
        '{"prompt": "one", "max_tokens": 5}\n',
        "\n",
        '"two"\r\n',
        '{"prompt": "three", "other": 1}',
    )
    prompts = read_prompts(path)
    assert [p.prompt for p in prompts] == ["one", "two", "three"]
    assert [p.line for p in prompts] == [1, 3, 4]
    load = workload(COMPLETIONS, prompts=prompts, osl="9")
    assert load.isl_source == "file" and not load.wants_calibration
    assert [sent(load, i)["prompt"] for i in range(4)] == ["one", "two", "three", "one"]
    assert [load.wanted(i) for i in range(3)] == [(None, 5), (None, 9), (None, 9)]
    chat = workload(CHAT, prompts=prompts, osl=None)
    assert text_of(chat, 1) == "two"
    assert "max_tokens" not in sent(chat, 1)


def test_messages_and_token_ids_go_where_they_are_taken(tmp_path):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    chats = read_prompts(write(tmp_path, json.dumps({"messages": messages})))
    assert sent(workload(CHAT, prompts=chats), 0)["messages"] == messages
    with pytest.raises(UsageFault, match=r"line 1 .* messages"):
        workload(COMPLETIONS, prompts=chats)
    ids = read_prompts(write(tmp_path, '"a"\n', '{"prompt": [5, 6]}\n'))
    assert sent(workload(COMPLETIONS, prompts=ids), 1)["prompt"] == [5, 6]
    with pytest.raises(UsageFault, match=r"line 2 .* token ids"):
        workload(CHAT, prompts=ids)


BAD = {
    "is not JSON": '{"prompt": "kiwi-canary"',
    "is not UTF-8": b'"kiwi-canary \xff"',
    "is neither an object nor a string": '["kiwi-canary"]',
    "needs either a prompt or messages": '{"text": "kiwi-canary"}',
    "has an empty prompt": '{"prompt": ""}',
    "neither text nor a list of token ids": '{"prompt": ["kiwi-canary"]}',
    "neither text nor a list": '{"prompt": []}',
    "messages that are not a list": '{"messages": "kiwi-canary"}',
    "has a message without a role": '{"messages": [{"content": "kiwi-canary"}]}',
    "has a max_tokens": '{"prompt": "kiwi-canary", "max_tokens": 0}',
    "has a max_tokens that": '{"prompt": "kiwi-canary", "max_tokens": true}',
    "needs either": '{"prompt": "kiwi-canary", "messages": [{"role": "user"}]}',
    "is longer than 8 MiB": b'"' + b"k" * LINE_LIMIT + b'"',
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_line_is_named_by_its_number_and_never_quoted(tmp_path, problem):
    path = write(tmp_path, '"fine"\n', "\n", BAD[problem], "\n")
    with pytest.raises(UsageFault, match=problem) as fault:
        read_prompts(path)
    assert str(fault.value).startswith("line 3 of ")
    assert "kiwi-canary" not in fault.value.text + fault.value.remedy
    assert fault.value.__cause__ is None
    assert fault.value.__context__ is None or fault.value.__suppress_context__


def test_files_that_hold_nothing(tmp_path):
    with pytest.raises(UsageFault, match="holds no prompt"):
        read_prompts(write(tmp_path, "\n\n"))
    with pytest.raises(UsageFault, match="No such file"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(UsageFault):
        read_prompts(tmp_path)


def test_a_file_that_is_too_big_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("latdiag.load.work.promptfile.FILE_LIMIT", 40)
    path = write(tmp_path, *['"a prompt"\n'] * 5)
    with pytest.raises(UsageFault, match="line 4 "):
        read_prompts(path)


def test_a_file_that_may_not_be_read_is_a_local_fault(tmp_path, monkeypatch):
    # Permissions do not stop root, who may run this.
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(LocalFault):
        read_prompts(tmp_path / "p.jsonl")


def test_prompts_of_a_file_get_no_prefix(tmp_path):
    prompts = read_prompts(write(tmp_path, '"a"'))
    with pytest.raises(UsageFault):
        workload(prompts=prompts, shared_prefix=5)


def test_nothing_shows_prompts(tmp_path):
    prompts = read_prompts(write(tmp_path, '{"prompt": "kiwi-canary"}'))
    load = workload(prompts=prompts, overlay={"user": "kiwi-canary"})
    assert "kiwi-canary" not in repr(load) + repr(prompts)
