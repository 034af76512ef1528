"""Runs and captures, mutated by structure: other types, extremes, nulls, rows that contradict
themselves, truncated files, bombs, what is no file. Drawn from a seed that is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EXTREMES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 1.5, -0.0, 1e308, "", "x",
    "\x1b[31m\u202e", "x" * 100_000, [], {}, [[]], [None], {"": None}, "NaN", "9" * 400,
)  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside, level by level."""
    found: list[tuple[Any, Any]] = []
    level = [value]
    while level:
        inside = [
            (each, key)
            for each in level
            for key in (list(each) if isinstance(each, dict) else range(len(each)))
        ]
        found += inside
        level = [c[k] for c, k in inside if isinstance(c[k], dict | list)]
    return found


def mutate_json(file: Path, draw: random.Random) -> None:
    """One to three values of a JSON document become others, go, or come."""
    document = json.loads(file.read_bytes())
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        container, key = draw.choice(_places(document))
        how = draw.random()
        if how < 0.75:
            container[key] = draw.choice(_EXTREMES)
        elif how < 0.9:
            del container[key]
        elif isinstance(container, dict):
            container[draw.choice(("more", "", "\x1b", "k" * 5000))] = draw.choice(_EXTREMES)
        else:
            container.extend(container[:1] * draw.choice((1, 1000)))
        if not _places(document):
            break
    text = json.dumps(document)
    rare = draw.random()
    if rare < 0.03:
        text = text[: draw.randrange(len(text))]
    elif rare < 0.06:
        text = '{"a":' * 50_000
    elif rare < 0.07:
        text = text[:-1] + ', "map": {' + ",".join(f'"{i}":0' for i in range(100_000)) + "}}"
    file.write_text(text)


def _values(column: Any, draw: random.Random) -> list[Any]:
    """The column's values, some of them others of its type."""
    import pyarrow as pa

    values = column.to_pylist()
    kind = column.type
    share = draw.choice((0.02, 0.3, 1.0))

    def other(value: Any) -> Any:
        if draw.random() > share:
            return value
        if draw.random() < 0.2:
            return None
        if pa.types.is_integer(kind):
            near = (value or 0) + draw.choice((-1, 1)) * draw.choice((1, 10**6, 10**9, 10**13))
            near = max(-(2**63), min(2**63 - 1, near))
            return draw.choice((near, near, near, 0, -1, 2**62, 2**63 - 1, -(2**63), 2**40))
        if pa.types.is_floating(kind):
            return draw.choice((0.0, -1.0, 1e308, float("nan"), float("inf"), -float("inf")))
        if pa.types.is_boolean(kind):
            return draw.random() < 0.5
        if pa.types.is_string(kind):
            return draw.choice(("", "x", "ok", "\x1b[1m", "9" * 30, "{", "[1]", "é" * 30_000))
        if pa.types.is_map(kind):
            return draw.choice(([], [("", "")], [("a", "1"), ("a", "2")], [("k", "v" * 999)]))
        return _list(value, kind, draw)

    return [other(value) for value in values]


def _list(value: Any, kind: Any, draw: random.Random) -> Any:
    import pyarrow as pa

    items = list(value or [])
    if not items:
        return items
    if pa.types.is_integer(kind.value_type):
        bound = 2 ** (kind.value_type.bit_width - 1)
        place = draw.randrange(len(items))
        items[place] = draw.choice((0, -1, bound - 1, -bound, items[0], items[-1], 3))
    how = draw.random()
    if how < 0.3:
        items.reverse()
    elif how < 0.4:
        items = items[: len(items) // 2]
    elif how < 0.5:
        draw.shuffle(items)
    return items


def mutate_parquet(file: Path, draw: random.Random) -> None:
    """Some columns of a part are others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    n = table.num_rows
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(table.num_columns)
        name = table.schema.names[place]
        column = table.column(place).combine_chunks()
        how = draw.random()
        if how < 0.62:
            new = pa.array(_values(column, draw), column.type)
            table = table.set_column(place, name, new)
        elif how < 0.70:
            table = table.set_column(place, name, pa.nulls(n, column.type))
        elif how < 0.76:
            table = table.set_column(place, name, pa.array(draw.choices(range(-5, 300), k=n)))
        elif how < 0.80:
            table = table.remove_column(place)
        elif how < 0.88:
            same = [i for i, f in enumerate(table.schema) if f.type == column.type]
            table = table.set_column(place, name, table.column(draw.choice(same)))
        elif how < 0.92:
            table = table.append_column(draw.choice((name, "more")), column)
        elif how < 0.97:
            rows = draw.choices(range(n), k=draw.choice((n, 3 * n, 1)))
            table = table.take(pa.array(rows))
            n = len(rows)
        else:
            table = _bomb(table, name, draw)
            n = table.num_rows
    codec = draw.choice(("lz4", "zstd", "gzip", "none"))
    pq.write_table(table, file, compression=codec, store_schema=draw.random() < 0.3)
    _damage(file, draw)


def _bomb(table: Any, name: str, draw: random.Random) -> Any:
    """Much from little: a long text in every row, many rows of one, a long list, a large map."""
    import pyarrow as pa

    kind = table.schema.field(name).type
    place = table.schema.names.index(name)
    if pa.types.is_string(kind):
        one = pa.array(["x" * draw.choice((10**5, 10**6, 10**7))])
        some = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), one)
        return table.set_column(place, name, some)
    if pa.types.is_map(kind):
        many = [(str(i), "v") for i in range(100_000)]
        return table.set_column(place, name, pa.array([many] + [[]] * (table.num_rows - 1), kind))
    if pa.types.is_list(kind):
        long = [1] * draw.choice((10**5, 5 * 10**6))
        rows = [long] + [[]] * (table.num_rows - 1)
        return table.set_column(place, name, pa.array(rows, kind))
    return table.take(pa.array([0] * draw.choice((10**4, 10**5)), pa.int64()))


def _damage(file: Path, draw: random.Random) -> None:
    """Now and then bytes of the file itself."""
    how = draw.random()
    data = bytearray(file.read_bytes())
    if how < 0.04:
        file.write_bytes(data[: draw.randrange(len(data))])
    elif how < 0.10:
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(data)


def mutate_tree(root: Path, draw: random.Random) -> None:
    """A file becomes what is no file, another's, or goes; odd names come."""
    files = sorted(f for f in root.rglob("*") if f.is_file())  # for the seed's sake
    if not files:
        return  # an earlier one took them all
    file, byte = draw.choice(files), draw.randbytes(1)
    acts: list[Callable[[], object]] = [
        lambda: file.unlink(),
        lambda: (file.unlink(), file.mkdir()),
        lambda: (file.unlink(), os.mkfifo(file)),
        lambda: (file.unlink(), file.symlink_to("/dev/zero")),
        lambda: (file.unlink(), file.symlink_to(file.name)),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(byte * 4096),
        lambda: shutil.copy(draw.choice(files), file),
        lambda: shutil.copy(file, file.with_name("part-\x1b[1m-000001.parquet")),
        lambda: shutil.copy(file, file.with_name("part-w0-999999999.parquet")),
        lambda: shutil.copy(file, file.with_name("open-w0.parquet")),
        lambda: shutil.copy(file, file.with_name("é\u202e.json")),
        lambda: shutil.rmtree(file.parent),
    ]
    with contextlib.suppress(OSError):
        draw.choice(acts)()


def mutate_run(root: Path, draw: random.Random) -> None:
    """One to three places of a run."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        how = draw.random()
        kind = "*.json" if how < 0.4 else "*.parquet" if how < 0.92 else ""
        files = sorted(f for f in root.rglob(kind) if f.is_file()) if kind else []
        if not files:
            mutate_tree(root, draw)
            continue
        file = draw.choice(files)
        if kind == "*.json" and draw.random() < 0.5:
            file = root / "run.json" if (root / "run.json").is_file() else file
        # What an earlier mutation made of it may be beyond another.
        with contextlib.suppress(Exception):
            (mutate_json if kind == "*.json" else mutate_parquet)(file, draw)


def mutate_capture(root: Path, draw: random.Random) -> None:
    """Lines, values or bytes of some files of a capture."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        files = sorted(f for f in root.rglob("*") if f.is_file() and f.stat().st_size)
        if not files or draw.random() < 0.06:
            with contextlib.suppress(IndexError):
                mutate_tree(root, draw)
            continue
        file = draw.choice(files)
        lines = file.read_bytes().split(b"\n")
        for _ in range(draw.choice((1, 3, 20))):
            place = draw.randrange(len(lines))
            lines[place] = _line(lines[place], draw)
        file.write_bytes(b"\n".join(lines))


def _line(line: bytes, draw: random.Random) -> bytes:
    how = draw.random()
    if how < 0.6:
        try:
            value = json.loads(line)
            container, key = draw.choice(_places(value))
            container[key] = draw.choice(_EXTREMES)
            return json.dumps(value).encode()
        except (ValueError, IndexError, TypeError, RecursionError):
            pass
    words = line.split(b" ")
    words[draw.randrange(len(words))] = draw.choice(
        (b"", b"NaN", b"-Inf", b"9" * 400, b"\xff\xfe", b'"', b"}", b"x" * 100_000, b"-1e308")
    )
    return b" ".join(words) if how < 0.9 else line[: draw.randrange(len(line) + 1)]
