"""What the project promises about its own code. With these, one ``pytest`` is the whole check."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import latdiag
from latdiag.model.caveats import CAVEATS, facts_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "latdiag"
MAX_FILE, MAX_FUNCTION = 400, 60
#: Documents of any shape (``dict[str, Any]``) in the package.
MAX_UNTYPED = 2

#: Longer than the bound, each with the reason why a cut would make it worse.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

FORBIDDEN_ENDINGS = ("Manager", "Helper", "Helpers", "Util", "Utils", "Base", "Factory")

#: Never loaded by ``import latdiag`` or ``--help``: each costs 50 ms to 1.3 s of CPU.
HEAVY = {
    "numpy", "pandas", "scipy", "pyarrow", "grpc", "opentelemetry", "rich", "httpx", "httptools",
    "httpcore", "tokenizers", "ssl", "asyncio", "multiprocessing",
}  # fmt: skip
#: Imported inside functions only, where they are imported before readers are forked; the others
#: of these have one home.
LATE = {"numpy", "pandas", "scipy", "pyarrow", "grpc", "opentelemetry", "rich", "tokenizers"}
FORKING = (
    *(f"latdiag/{room}/" for room in ("cli", "load", "model", "runtime", "stacks")),
    *(f"latdiag/store/{name}" for name in ("clock", "documents", "faults", "place", "schema")),
    "latdiag/store/writer",
    *(f"latdiag/ingest/{name}.py" for name in ("collection", "collector", "gathering", "plan")),
    "latdiag/ingest/otlp/",
    *(f"latdiag/probe/{name}.py" for name in ("limits", "planner", "run")),
    *(f"latdiag/gate/{name}.py" for name in ("settings", "table", "checks")),
    *(f"latdiag/gate/live/{name}.py" for name in ("kept", "pairs", "run", "sending")),
    "latdiag/report/",
)
HOMES = {
    "click": ("latdiag/cli/",),
    "httpx": ("latdiag/load/", "latdiag/ingest/", "latdiag/export/"),
    "httptools": ("latdiag/load/", "latdiag/ingest/", "latdiag/sim/"),
}


def _sources(*folders: str) -> list[Path]:
    """Every Python file of these folders of the repository."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture(autouse=True, scope="module")
def _trees() -> Iterator[None]:
    """Trees of all files are large: no later test is to carry them."""
    yield
    for held in (_tree, _definitions):
        held.cache_clear()


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All below ``node`` that is no expression, which is little of a tree."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def _definitions(path: Path) -> list[_Definition]:
    """Functions and classes, wherever in the file."""
    return [node for node in _statements(_tree(path)) if isinstance(node, _Definition)]


SOURCES = _sources("latdiag")
EVERYTHING = _sources("latdiag", "tests", "examples")


# --- the tools


def _tool(module: str, *command: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (pip install 'latdiag[test]')")
    script = Path(sys.executable).parent / command[0]
    return subprocess.run(
        [str(script), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.tools
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("importlinter", ("lint-imports", "--no-cache")),
        ("ruff", ("ruff", "check", ".")),
        ("ruff", ("ruff", "format", "--check", ".")),
        ("mypy", ("mypy",)),
    ],
    ids=["imports", "lint", "format", "types"],
)
def test_the_tools_have_no_complaint(module: str, command: tuple[str, ...]) -> None:
    done = _tool(module, *command)
    assert done.returncode == 0, done.stdout + done.stderr


# --- imports


def _modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter that ran ``code``."""
    tail = "\nimport sys; sys.stderr.write(' '.join({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import latdiag",
        "from latdiag.cli import run; assert run(['--help']) == 0",
        "from latdiag.cli import run; assert run(['explain', 'ttft']) == 0",
        "import latdiag.cli.load",
        "import latdiag.cli.probe",
        "import latdiag.cli.gate.run",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    heavy = HEAVY if ".cli." not in code else LATE
    assert _modules_after(code) & heavy == set()


def test_a_gate_is_light_until_its_processes_are_there() -> None:
    code = "import latdiag.gate.live.run, latdiag.gate.settings"
    assert _modules_after(code) & (LATE - {"rich"}) == set()  # httpx brings rich


def test_help_imports_no_verb() -> None:
    code = (
        "import sys; from latdiag.cli import run; assert run(['--help']) == 0\n"
        "loaded = [m for m in sys.modules if m.startswith('latdiag.')]\n"
        "sys.stderr.write(' '.join(loaded)); sys.exit()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    allowed = {f"latdiag.cli{part}" for part in ("", ".group", ".outcome", ".slips", ".streams")}
    allowed |= {f"latdiag.model{part}" for part in ("", ".errors", ".secrets", ".text")}
    assert set(done.stderr.split()) <= allowed | {"latdiag.runtime", "latdiag.runtime.signals"}


def _cpu_s(*args: str) -> float:
    """CPU seconds of a Python process, the least of seven."""
    costs = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *args], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        costs.append(user + system)
    return min(costs)


def test_help_costs_little_more_than_bare_python() -> None:
    """At most 150 ms of CPU; on a machine whose bare Python needs over 17 ms, in proportion."""
    bare = _cpu_s("-c", "pass")
    extra = _cpu_s("-m", "latdiag", "--help") - bare
    assert extra <= 0.150 * max(1.0, bare / 0.017)


def _imports(tree: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
    """(top-level name, whether inside a function or under TYPE_CHECKING) of every import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0], late
        elif not isinstance(node, ast.expr):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            yield from _imports(node, late or function or typing_only)


def _misplaced(path: Path) -> Iterator[str]:
    place = _name(path)
    for name, late in _imports(_tree(path), late=False):
        if not late and place.startswith(FORKING) and name in LATE:
            yield f"{place}: {name} is imported at the top"
        if not late and name in HOMES and not place.startswith(HOMES[name]):
            yield f"{place}: {name} has its home"
        known = name == "latdiag" or name in sys.stdlib_module_names
        if place.startswith("latdiag/model/") and not known:
            yield f"{place}: {name} is none of the standard library"


def test_imports_are_where_they_belong() -> None:
    assert [each for path in SOURCES for each in _misplaced(path)] == []


# --- shape


def _too_long(path: Path) -> Iterator[str]:
    place = _name(path)
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MAX_FILE and place not in LONG_FILES:
        yield f"{place} has {lines} lines"
    for node in _definitions(path):
        if not isinstance(node, ast.ClassDef):
            size = (node.end_lineno or 0) - node.lineno + 1
            if size > MAX_FUNCTION and f"{place}:{node.name}" not in LONG_FUNCTIONS:
                yield f"{place}: {node.name} has {size} lines"


def test_files_and_functions_are_short() -> None:
    assert [each for path in EVERYTHING for each in _too_long(path)] == []


def test_exceptions_from_the_bounds_are_argued_and_still_needed() -> None:
    for place, reason in (LONG_FILES | LONG_FUNCTIONS).items():
        assert len(reason.split()) >= 5, place
        assert (ROOT / place.partition(":")[0]).exists(), place


def _things(path: Path) -> Iterator[str]:
    """Names of the classes in a file, and its own as a class would bear it."""
    yield "".join(part.capitalize() for part in path.stem.split("_"))
    yield from (n.name for n in _definitions(path) if isinstance(n, ast.ClassDef))


def test_names_say_what_a_thing_is() -> None:
    names = [(_name(path), name) for path in EVERYTHING for name in _things(path)]
    assert [each for each in names if each[1].endswith(FORBIDDEN_ENDINGS)] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [_name(path) for path in SOURCES if not ast.get_docstring(_tree(path))] == []


def test_documents_of_any_shape_become_fewer() -> None:
    """What crosses a function's border has a type: the goal is 40, and the number never grows."""
    texts = (path.read_text(encoding="utf-8") for path in SOURCES)
    found = sum(len(re.findall(r"(?:dict|Mapping)\[str, Any\]", text)) for text in texts)
    assert found <= MAX_UNTYPED


# --- caveats


def _caveat_calls() -> Iterator[tuple[str, str, set[str] | None]]:
    """(file, code, names of the facts or None) of every ``caveat("LD...", ...)`` in the source."""
    for path in SOURCES:
        if "caveat(" not in path.read_text(encoding="utf-8"):
            continue
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called, first = node.func, node.args[0]
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name == "caveat" and isinstance(first, ast.Constant):
                named = {word.arg for word in node.keywords}
                facts = None if None in named else {word for word in named if word}
                yield _name(path), str(first.value), facts


def test_every_caveat_in_the_source_is_in_the_table_with_its_facts() -> None:
    for place, code, facts in _caveat_calls():
        assert code in CAVEATS, place
        assert facts is None or facts == facts_of(CAVEATS[code]), f"{code} in {place}"


def test_every_code_that_is_written_anywhere_exists() -> None:
    for path in SOURCES:
        codes = set(re.findall(r"\bLD[1-9]\d\d\b", path.read_text(encoding="utf-8")))
        assert codes <= CAVEATS.keys(), _name(path)


def test_codes_say_their_class_and_every_row_has_words() -> None:
    for code, row in CAVEATS.items():
        assert re.fullmatch(r"LD[1-5]\d\d", code)
        assert row.text.strip() and row.remedy.strip() and row.meaning.strip()


# --- the repository


def test_properties_leave_the_number_of_examples_to_the_profile() -> None:
    """A number of its own would cost in ``dev`` what it costs in ``ci``, or stop ``ci`` short."""
    mine = {"tests/conftest.py", "tests/profiles.py", _name(Path(__file__))}
    texts = {_name(path): path.read_text(encoding="utf-8") for path in _sources("tests")}
    assert {place for place, text in texts.items() if "max_examples" in text} <= mine


def test_the_version_is_stated_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == latdiag.__version__


def _line(name: str, file: str) -> str:
    """The one line of the one block with that name."""
    text = (ROOT / file).read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```sh {name}\n(.*?)```$", text, re.M | re.S)
    (line,) = block.splitlines()
    return str(line)


def test_the_readme_has_two_lines_to_copy_and_ci_runs_those() -> None:
    """Each makes an environment of its own and installs: what CI proves is what one copies."""
    first, second = _line("first", "README.md"), _line("second", "README.md")
    for line in (first, second):
        assert "-m venv " in line and "pip install" in line
    assert "latdiag probe demo:queue" in first and "pytest" in second
    shown = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run"), "--show"], capture_output=True, text=True, check=True
    )
    in_full = _line("properties", "CONTRIBUTING.md")
    assert '-m "hypothesis or repeated"' in in_full and "--hypothesis-profile=ci" in in_full
    assert shown.stdout.splitlines() == [first, second, in_full]


def test_every_example_is_listed_and_tested() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    tests = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    for path in (ROOT / "examples").glob("*.py"):
        assert path.name in listed and path.stem in tests


@pytest.mark.parametrize(("name", "code"), [("load", 0), ("probe", 0), ("invalid", 1)])
def test_the_markdown_summary_says_what_the_result_says(name: str, code: int) -> None:
    path = ROOT / "examples" / "markdown_summary.py"
    with (ROOT / "tests" / "fixtures" / f"result_{name}.json").open() as result:
        done = subprocess.run(
            [sys.executable, "-I", str(path)], stdin=result, capture_output=True, check=False
        )
    said = done.stdout.decode()
    assert (done.returncode, done.stderr) == (code, b"")
    assert "| ttft | 212.4 (206.1 to 219.8) |" in said and ("**INVALID**" in said) == bool(code)


def test_the_schema_ships_with_the_package() -> None:
    assert json.loads((PACKAGE / "report" / "schema.json").read_text())["$defs"]
    assert (PACKAGE / "py.typed").exists()
