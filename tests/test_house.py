"""The rules of the house that no linter knows: sizes, names, imports, documents."""

import ast
import doctest
import graphlib
import importlib
import importlib.util
import inspect
import itertools
import re
import runpy
import subprocess
import sys
import tokenize
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
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
FOLDER_MODULES = 24
LONG_FUNCTIONS_SHARE = 0.02
EXAMPLE_CODE_LINES, README_LINES = 60, 150

# From the inside out: a module imports from its own layer and from earlier ones.
# The longest matching prefix tells the layer; a package not named here is outermost.
LAYERS = ["zoo.errors", "zoo.cluster", "zoo.orca.data", "zoo.orca.learn"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
EXTRA_CALLS = {"MissingExtraError", "load_extra"}
# Import names that keras, pillow, pyspark and universal-pathlib bring.
CARRIED = {"PIL", "h5py", "py4j", "upath"}
TENSORS = {"jax", "keras", "tensorflow", "torch"}

# `zoo.orca.learn` has these folders that know no framework; each other one is a framework.
NEUTRAL = {"agree", "driver", "optimizers", "rank", "score"}
# No framework either: import paths of older programs, and datasets for several frameworks.
DOORS = {"tf", "tf2", "tfdata"}
FRAMEWORKS = sorted(
    folder.name
    for folder in (PACKAGE / "orca" / "learn").iterdir()
    if folder.is_dir() and folder.name not in {*NEUTRAL, *DOORS, "__pycache__"}
)
# Parts of frameworks that several of them use.
SHARED = {"tfdata"}
# What a rank runs or may run: a machine with neither PySpark nor Java can do it.
SPARKLESS = [
    "zoo.cluster.ranks",
    "zoo.orca.data.tensors",
    *(f"zoo.orca.learn.{name}" for name in ("agree", "rank", "score", "tfdata", *FRAMEWORKS)),
]
# Within these, what is about Spark itself: the launcher, the rows of frames, the estimators' faces.
SPARK_FACES = {
    "zoo.cluster.ranks.spark",
    "zoo.orca.data.tensors.frame_rows",
    "zoo.orca.data.tensors.plan_columns",
    "zoo.orca.data.tensors.spark_rows",
    *(f"zoo.orca.learn.{name}.estimator" for name in FRAMEWORKS),
}
WINGS = ["zoo.cluster", "zoo.orca.data", "zoo.orca.learn"]
# Folders that mirror others have modules of the same names.
MIRRORS = {
    "operator": {*FRAMEWORKS, "rank"},
    "backends": {*FRAMEWORKS},
    **{name: {"learn", *FRAMEWORKS, *DOORS} for name in (*FRAMEWORKS, *DOORS)},
}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_public(path: Path) -> bool:
    return not any(part.startswith("_") for part in module_name(path).split("."))


MODULES = {module_name(path) for path in SOURCES}
PUBLIC = [path for path in SOURCES if is_public(path)]

Nodes = Callable[[Path], Iterator[ast.AST]]


def load(path: Path) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old import paths may say that they are old
        return importlib.import_module(module_name(path))


def every_node(path: Path) -> Iterator[ast.AST]:
    return ast.walk(TREES[path])


def run_nodes(path: Path) -> Iterator[ast.AST]:
    """What runs at some time: all but what only type checkers read."""
    yield from _inside(TREES[path], at_import=False)


def import_nodes(path: Path) -> Iterator[ast.AST]:
    """What runs when the module is imported: no bodies of functions."""
    yield from _inside(TREES[path], at_import=True)


def _inside(tree: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from _inside(node, at_import=at_import)


def imports(path: Path, nodes: Nodes = every_node) -> Iterator[str]:
    """Full names of the modules that a file imports; `nodes` tells where to look for them."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in nodes(path):
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
        and path.name != ".git"  # a file where the checkout is a worktree
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


def test_no_import_circles() -> None:
    """A circle is told by name: `CycleError`."""
    loads = {
        module_name(path): MODULES.intersection(imports(path, import_nodes)) for path in SOURCES
    }
    graphlib.TopologicalSorter({name: found - {name} for name, found in loads.items()}).prepare()


def inside(folders: Iterable[str]) -> list[Path]:
    """The files of some packages."""
    heads = tuple(f"{folder}." for folder in folders)
    return [path for path in SOURCES if f"{module_name(path)}.".startswith(heads)]


def loading(
    paths: Iterable[Path], packages: Container[str], nodes: Nodes = every_node
) -> list[str]:
    """Which of the files import one of the packages."""
    return [
        f"{shown(path)} imports {name}"
        for path in paths
        for name in imports(path, nodes)
        if name.split(".")[0] in packages
    ]


def test_cluster_knows_no_tensors() -> None:
    assert not loading(inside(["zoo.cluster"]), TENSORS)


def test_neutral_learn_knows_no_framework() -> None:
    learn = set(inside(["zoo.orca.learn"]))
    known = [f"zoo.orca.learn.{name}" for name in FRAMEWORKS]
    doors = [f"zoo.orca.learn.{name}" for name in DOORS]
    neutral = learn.difference(inside([*known, *doors]))
    assert not loading(sorted(neutral), TENSORS)
    assert not [
        f"{shown(path)} imports {name}"
        for path in sorted(neutral)
        for name in imports(path)
        if name.startswith(tuple(known))
    ]


def test_frameworks_do_not_import_each_other() -> None:
    assert not [
        f"{shown(path)} imports {name}"
        for one in FRAMEWORKS
        for path in inside([f"zoo.orca.learn.{one}"])
        for name in imports(path)
        for other in FRAMEWORKS
        if other not in {one, *SHARED} and f"{name}.".startswith(f"zoo.orca.learn.{other}.")
    ]


def test_ranks_know_no_spark() -> None:
    paths = [path for path in inside(SPARKLESS) if module_name(path) not in SPARK_FACES]
    assert not loading(paths, {"pyspark", "py4j"}, run_nodes)


WITHOUT_SPARK = """
import sys
sys.modules["pyspark"] = sys.modules["py4j"] = None  # an import of it fails
import zoo.cluster.ranks.local
import zoo.orca.learn.rank.body
"""


def test_a_rank_loads_without_spark() -> None:
    run = [sys.executable, "-c", WITHOUT_SPARK]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_only_one_folder_knows_ray() -> None:
    others = set(SOURCES).difference(inside(["zoo.cluster.ray"]))
    assert not loading(sorted(others), {"ray"})


# Names and rooms


def test_folders_are_small() -> None:
    found = Counter(path.parent for path in SOURCES)
    assert not {shown(path): count for path, count in found.items() if count > FOLDER_MODULES}


def test_one_name_is_one_module_of_a_wing() -> None:
    """Unless one folder mirrors the other."""
    assert not [
        f"{shown(one)} and {shown(other)}"
        for wing in WINGS
        for one, other in itertools.combinations(inside([wing]), 2)
        if one.name == other.name != "__init__.py"
        and other.parent.name not in MIRRORS.get(one.parent.name, ())
        and one.parent.name not in MIRRORS.get(other.parent.name, ())
    ]


def test_loggers_have_one_name() -> None:
    assert not [
        f"{shown(path)}:{node.lineno}"
        for path in SOURCES
        for node in TREES[path].body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.value).startswith("logging.getLogger")
        and ast.unparse(node.targets[0]) != "_log"
    ]


# Public names


def lists_names(path: Path) -> bool:
    body = [node for node in TREES[path].body if not isinstance(node, ast.Expr)]
    assigned = [ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)]
    return not body or "__all__" in assigned


def test_public_names_are_listed() -> None:
    assert not [shown(path) for path in PUBLIC if not lists_names(path)]


def undocumented(module: ModuleType) -> Iterator[str]:
    """Its own public names without a docstring; a listed name that is not there raises."""
    if not module.__doc__:
        yield module.__name__
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        ours = getattr(value, "__module__", "").startswith("zoo")
        if ours and (inspect.isclass(value) or inspect.isfunction(value)) and not value.__doc__:
            yield f"{module.__name__}.{name}"


@pytest.mark.slow
def test_public_names_exist_and_are_documented() -> None:
    # JAX is not part of the set-up.
    there = [p for p in PUBLIC if p.name != "jax.py" or importlib.util.find_spec("jax")]
    assert not [name for path in there for name in undocumented(load(path))]


@pytest.mark.slow
def test_docstring_examples_run() -> None:
    for path in SOURCES:
        if ">>>" in path.read_text():
            result = doctest.testmod(load(path), optionflags=doctest.ELLIPSIS)
            assert result.attempted > 0, shown(path)
            assert result.failed == 0, shown(path)


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


def test_map_of_folders_is_up_to_date() -> None:
    """`make format` writes it."""
    script = runpy.run_path(str(ROOT / "scripts" / "architecture_map.py"))
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert script["with_map"](page) == page
    assert all(len(line.split(maxsplit=1)) == 2 for line in script["lines"](PACKAGE))


def in_pages(pattern: str) -> list[tuple[Path, str]]:
    """What a pattern finds in each page."""
    flags = re.MULTILINE | re.DOTALL
    return [
        (page, found) for page in PAGES for found in re.findall(pattern, page.read_text(), flags)
    ]


def test_links_lead_somewhere() -> None:
    links = in_pages(r"\]\(([^)#\s]+)")
    local = [one for one in links if ":" not in one[1]]
    assert not [(shown(page), link) for page, link in local if not (page.parent / link).exists()]


def test_api_pages_know_what_programs_import() -> None:
    """All else is marked as internal there."""
    faces = set(runpy.run_path(str(ROOT / "docs" / "conf.py"))["FACES"])
    texts = [block for _, block in in_pages(r"^```python\n(.*?)^```")]
    texts += [path.read_text() for path in PROGRAMS if path.is_relative_to(ROOT / "examples")]
    named = {
        str(node.module)
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("zoo.")
    }
    assert faces <= MODULES
    assert named <= faces


def test_files_named_on_the_page_of_the_architecture_exist() -> None:
    files = [f"/{shown(path)}" for path in written_files() if path.suffix == ".py"]
    named = re.findall(r"(?<![\w>])\w+(?:/\w+)+\.py", (ROOT / "docs/architecture.md").read_text())
    assert named
    assert not [name for name in named if not any(file.endswith(f"/{name}") for file in files)]


def test_code_in_pages_imports_what_exists() -> None:
    for page, block in in_pages(r"^```python\n(.*?)^```"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo"):
                module = importlib.import_module(str(node.module))
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, shown(page)


def test_make_targets_in_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for _, name in in_pages(r"(?:^|`)make ([a-z-]+)")} <= targets


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
    declared = needed().union(*(needed(extra) for extra in EXTRAS - {"dev", "examples"}))
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
