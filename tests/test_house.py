"""The rules of the house that no linter knows: sizes, names, imports, documents."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
import tokenize
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "zoo"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = sorted(p for part in ("benchmarks", "examples") for p in (ROOT / part).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}

FILE_LINES, CLASS_LINES, FUNCTION_LINES = 600, 300, 60
LONG_FUNCTIONS_SHARE = 0.02
EXAMPLE_CODE_LINES, README_LINES = 60, 150

# From the inside out: a module imports from its own layer and from earlier ones.
# The longest matching prefix tells the layer; a package not named here is outermost.
LAYERS = ["zoo.errors", "zoo.cluster", "zoo.orca.data", "zoo.orca.learn"]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
EXTRA_CALLS = {"MissingExtraError", "load_extra"}
CARRIED = {"PIL", "py4j", "upath"}  # import names that pillow, pyspark and universal-pathlib bring
TENSORS = {"jax", "keras", "tensorflow", "torch"}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_public(path: Path) -> bool:
    return not any(part.startswith("_") for part in module_name(path).split("."))


MODULES = {module_name(path) for path in SOURCES}
PUBLIC = [path for path in SOURCES if is_public(path)]
each_public = pytest.mark.parametrize("path", PUBLIC, ids=shown)
each_page = pytest.mark.parametrize("page", PAGES, ids=shown)


def load(path: Path) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old import paths may say that they are old
        return importlib.import_module(module_name(path))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from zoo import orca` imports zoo.orca, `from zoo.orca import X` zoo.orca.
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in MODULES else source


def layer(name: str) -> int:
    matching = [at for at in LAYERS if f"{name}.".startswith(f"{at}.")]
    return LAYERS.index(max(matching, key=len)) if matching else len(LAYERS)


def sizes(*kinds: type[ast.stmt]) -> list[tuple[str, int]]:
    """Where each definition of these kinds is, and how many lines it has."""
    return [
        (f"{shown(path)}:{node.lineno}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text()
    passive = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    passive |= {tokenize.ENCODING, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type not in passive:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            held.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def written_files() -> list[Path]:
    """What people wrote: no build output, and nothing that git or a tool keeps here."""
    folders = ["src", "tests", "docs", "examples", "benchmarks", "scripts", ".ci"]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found += ROOT.iterdir()
    made = ROOT / "docs" / "api"
    kinds = {".md", ".py", ".pyi", ".sh", ".toml", ".txt", ".cfg", ".yml", ".yaml", ""}
    return [
        path
        for path in found
        if path.is_file()
        and path.suffix in kinds
        and made not in path.parents
        and not any(part.endswith(".egg-info") for part in path.parts)
    ]


# Imports


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import zoo", {"pyspark", "py4j", "ray", *TENSORS}),
        ("from zoo.orca import init_orca_context", {"ray", *TENSORS}),
    ],
)
def test_import_is_light(statement: str, unwanted: set[str]) -> None:
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not unwanted & set(done.stdout.split())


def test_imports_point_inward() -> None:
    outward = [
        f"{shown(path)} imports {name}"
        for path in SOURCES
        for name in MODULES.intersection(imports(path))
        if layer(name) > layer(module_name(path))
    ]
    assert not outward


def test_cluster_knows_no_tensors() -> None:
    cluster = [path for path in SOURCES if module_name(path).startswith("zoo.cluster")]
    loads = [(shown(path), name) for path in cluster for name in imports(path)]
    assert not [load for load in loads if load[1].split(".")[0] in TENSORS]


# Public names


def lists_names(path: Path) -> bool:
    body = [node for node in TREES[path].body if not isinstance(node, ast.Expr)]
    assigned = [ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)]
    return not body or "__all__" in assigned


def test_public_names_are_listed() -> None:
    assert not [shown(path) for path in PUBLIC if not lists_names(path)]


@each_public
def test_public_names_exist_and_are_documented(path: Path) -> None:
    module = load(path)
    assert module.__doc__
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        ours = getattr(value, "__module__", "").startswith("zoo")
        if ours and (inspect.isclass(value) or inspect.isfunction(value)):
            assert value.__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("path", [p for p in SOURCES if ">>>" in p.read_text()], ids=shown)
def test_docstring_examples_run(path: Path) -> None:
    result = doctest.testmod(load(path), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


# Sizes


def test_files_are_short() -> None:
    files = [*SOURCES, *TESTS, *PROGRAMS]
    assert not [shown(path) for path in files if len(path.read_text().splitlines()) > FILE_LINES]


def test_classes_are_short() -> None:
    assert not [one for one in sizes(ast.ClassDef) if one[1] > CLASS_LINES]


def test_functions_are_short() -> None:
    found = sizes(ast.FunctionDef, ast.AsyncFunctionDef)
    long = [one for one in found if one[1] > FUNCTION_LINES]
    assert len(long) <= LONG_FUNCTIONS_SHARE * len(found), long


def test_examples_are_short() -> None:
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    assert not [shown(path) for path in examples if code_lines(path) > EXAMPLE_CODE_LINES]


def test_readme_is_short() -> None:
    assert 0 < len((ROOT / "README.md").read_text().splitlines()) < README_LINES


# Documents and leftovers


def test_architecture_names_every_file() -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text()
    names = {p.name if p.name != "__init__.py" else f"{p.parent.name}/" for p in SOURCES}
    assert not [name for name in sorted(names) if not re.search(rf"\b{re.escape(name)}", drawn)]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    inside = [link for link in links if ":" not in link and "docs/api" not in link]
    assert not [link for link in inside if not (page.parent / link).exists()]


@each_page
def test_code_in_pages_imports_what_exists(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo"):
            module = importlib.import_module(str(node.module))
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@each_page
def test_make_targets_in_pages_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets


def test_no_leftovers() -> None:
    mark = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    assert not [
        shown(path) for path in written_files() if mark.search(path.read_text(errors="replace"))
    ]


def test_no_paths_of_one_machine() -> None:
    home = re.compile(r"(?<![\w.~-])/(ro" r"ot|wo" r"rk|tmp/w)(?![\w-])")
    found = {
        (shown(path), match.group())
        for path in written_files()
        for match in home.finditer(path.read_text(errors="replace"))
    }
    assert not found


# Packages


def needed(extra: str | None = None) -> set[str]:
    """Names of the packages that the library needs, or that an extra adds."""
    needs = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return {re.split(r"[\s<>=!~;\[]", need)[0] for need in needs}


def named_extras(path: Path) -> Iterator[str]:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in EXTRA_CALLS:
            given = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
            yield from (str(arg.value) for arg in given if isinstance(arg, ast.Constant))


def test_imported_packages_are_declared() -> None:
    declared = needed().union(*(needed(extra) for extra in EXTRAS - {"dev"}))
    known = {*sys.stdlib_module_names, "zoo", *declared, *CARRIED}
    loads = [(shown(path), name) for path in SOURCES for name in imports(path)]
    assert not [load for load in loads if load[1].split(".")[0] not in known]


def test_named_extras_exist() -> None:
    named = {(shown(path), extra) for path in SOURCES for extra in named_extras(path)}
    assert not [one for one in named if one[1] not in EXTRAS]


def test_every_dependency_is_pinned() -> None:
    wanted = needed().union(*(needed(extra) for extra in EXTRAS))
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {pin.split("==")[0] for pin in pins if re.fullmatch(r"[\w.-]+==[\w.]+", pin)}
    assert wanted <= pinned
    assert all(pin.startswith("#") or pin.split("==")[0] in pinned for pin in pins if pin)
