"""The public surface as signatures, read from source: the contract's stub and our own files by the same reader.

1. Nothing is run to read a signature, so what a type checker would see is what is compared.
2. A difference is a line of text: `Log.compact` (not there), `App.__init__.threads` (an option that is not there),
   `App.__init__.guarantee: Literal['at_least_once'] = 'at_least_once'` (there, and this is how ours stands).
3. More of ours is no difference where it is additive: other names, other methods, keyword options with a default.

Annotations are compared as text after strings are opened, unions sorted and aliases written out.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tailrace.tests.support.source import ROOT, python_files

CONTRACT = ROOT / "tests" / "contract" / "tailrace.pyi"

# Sections of the stub, by the words of their heading, whose names come from a module of their own.
SECTIONS = {
    "tailrace.testing": "tailrace.testing",
    "tailrace.reducers": "tailrace.reducers",
    "tailrace.errors": "tailrace.errors",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef
ANY_DEFAULT = "..."


@dataclass(frozen=True)
class Parameter:
    """One parameter; `default` is the text of its value, None where it has none."""

    name: str
    kind: str
    annotation: str
    default: str | None


@dataclass(frozen=True)
class Signature:
    """One `def`, or one overload of it."""

    form: str
    parameters: tuple[Parameter, ...]
    returns: str
    module: str


@dataclass
class Surface:
    """A class: what its instances have, and what can be called on them."""

    bases: list[str]
    fields: dict[str, str] = field(default_factory=dict[str, str])
    methods: dict[str, list[Signature]] = field(default_factory=dict[str, list[Signature]])


@dataclass(frozen=True)
class Found:
    """A name at the place where it is written."""

    module: str
    nodes: tuple[ast.stmt, ...]


class Module:
    """One parsed file: its statements by the name that they bind."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (node.module or "", alias.name)
            for bound in _names_bound(node):
                self.bound.setdefault(bound, []).append(node)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        yield node
        if isinstance(node, ast.If):  # TYPE_CHECKING, in the fluent surface
            yield from node.body


def _names_bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


@cache
def module(name: str) -> Module | None:
    """A module of ours, or None; `contract` is the stub."""
    path = CONTRACT if name == "contract" else python_files().get(name)
    return Module(name, path) if path else None


@cache
def find(module_name: str, name: str) -> Found | None:
    """Where a name that a module offers is written, through as many re-exports as there are; None: it is not ours."""
    here = module(module_name)
    if here is None:
        return None
    if name in here.bound:
        return Found(module_name, tuple(here.bound[name]))
    if name in here.imported:
        return find(*here.imported[name])
    return None


# ---------------------------------------------------------------- annotations
def annotation_text(node: ast.expr | None, module_name: str) -> str:
    """An annotation in one spelling, whoever wrote it."""
    return "" if node is None else ast.unparse(_Normal(module_name).visit(node))


class _Normal(ast.NodeTransformer):
    def __init__(self, module_name: str) -> None:
        self.module_name = module_name

    def normal(self, node: ast.expr) -> ast.expr:
        """An expression is rewritten to an expression."""
        result = self.visit(node)
        assert isinstance(result, ast.expr)
        return result

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):
            return self.normal(ast.parse(node.value, mode="eval").body)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self.normal(ast.Name(node.attr))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = find(self.module_name, node.id) or find("contract", node.id)
        if found is not None and isinstance(assigned := found.nodes[-1], ast.Assign | ast.AnnAssign):
            value = assigned.value
            if value is not None and not isinstance(value, ast.Call):  # a call makes a TypeVar: that is a name
                return _Normal(found.module).normal(ast.parse(ast.unparse(value), mode="eval").body)
        return ast.Name(node.id)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        name = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
        if name == "Literal":
            choices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            texts = sorted(ast.unparse(choice) for choice in choices)
            return ast.parse(f"Literal[{', '.join(texts)}]", mode="eval").body
        return ast.Subscript(self.normal(node.value), self.normal(node.slice))

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        members = {ast.unparse(self.normal(member)) for member in _members(node)}
        parts = sorted({part for member in members for part in _split(member)})
        return ast.parse(" | ".join(parts), mode="eval").body


def _members(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_members(node.left), *_members(node.right)]
    return [node]


def _split(member: str) -> list[str]:
    """An alias that is itself a union, taken apart."""
    return [ast.unparse(part) for part in _members(ast.parse(member, mode="eval").body)]


# ---------------------------------------------------------------- signatures
def signature(node: Definition, module_name: str) -> Signature:
    """What a caller sees of one `def`."""
    arguments = node.args
    ordinary = [*arguments.posonlyargs, *arguments.args]
    without = len(ordinary) - len(arguments.defaults)
    parameters: list[Parameter] = []

    def add(argument: ast.arg, kind: str, default: ast.expr | None) -> None:
        text = None if default is None else _default_text(default, module_name)
        parameters.append(Parameter(argument.arg, kind, annotation_text(argument.annotation, module_name), text))

    for index, argument in enumerate(ordinary):
        kind = "positional only" if index < len(arguments.posonlyargs) else "positional"
        add(argument, kind, arguments.defaults[index - without] if index >= without else None)
    if arguments.vararg:
        add(arguments.vararg, "*", None)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        add(argument, "keyword", default)
    if arguments.kwarg:
        add(arguments.kwarg, "**", None)
    return Signature(_form(node), tuple(parameters), annotation_text(node.returns, module_name), module_name)


def _default_text(node: ast.expr, module_name: str) -> str:
    """A default in one spelling: 60_000, or a constant that holds it, is 60000."""
    if isinstance(node, ast.Constant) and node.value is ...:
        return ANY_DEFAULT
    if isinstance(node, ast.Name):
        found = find(module_name, node.id)
        assigned = found.nodes[-1] if found else None
        if isinstance(assigned, ast.Assign | ast.AnnAssign) and assigned.value is not None:
            return _default_text(assigned.value, module_name)
    try:
        return repr(ast.literal_eval(node))
    except ValueError:
        return ast.unparse(node)


def _form(node: Definition) -> str:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    for form in ("property", "classmethod", "staticmethod"):
        if form in decorators or (form == "property" and "cached_property" in decorators):
            return form
    return "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"


def signatures(nodes: list[Definition], module_name: str) -> list[Signature]:
    """The overloads of a function where it has some, as a caller does not see its implementation; else the function."""
    overloads = [node for node in nodes if any(ast.unparse(d).endswith("overload") for d in node.decorator_list)]
    return [signature(node, module_name) for node in overloads or nodes[-1:]]


def surface(found: Found) -> Surface:
    """A class with what it takes over from those of its bases that are ours."""
    node = found.nodes[-1]
    assert isinstance(node, ast.ClassDef)
    bases = [ast.unparse(base.value if isinstance(base, ast.Subscript) else base).split(".")[-1] for base in node.bases]
    result = Surface(bases)
    for base in bases:
        inherited = find(found.module, base)
        if inherited is not None and inherited.nodes[-1] is not node and isinstance(inherited.nodes[-1], ast.ClassDef):
            above = surface(inherited)
            result.bases += above.bases
            result.fields |= above.fields
            result.methods |= above.methods
    own: dict[str, list[Definition]] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            result.fields[statement.target.id] = annotation_text(statement.annotation, found.module)
        elif isinstance(statement, ast.Assign):
            result.fields |= {name: "" for name in _names_bound(statement) if name not in result.fields}
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            own.setdefault(statement.name, []).append(statement)
    result.methods |= {name: signatures(nodes, found.module) for name, nodes in own.items()}
    for statement in own.get("__init__", [])[-1:]:
        result.fields |= {k: v for k, v in _set_on_self(statement, found.module).items() if k not in result.fields}
    return result


def _set_on_self(init: Definition, module_name: str) -> dict[str, str]:
    """Attributes that `__init__` sets, with their annotation, or that of the argument of the same name."""
    arguments = {a.arg: annotation_text(a.annotation, module_name) for a in [*init.args.args, *init.args.kwonlyargs]}
    found: dict[str, str] = {}
    for node in ast.walk(init):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                written = annotation_text(node.annotation, module_name) if isinstance(node, ast.AnnAssign) else ""
                found[target.attr] = written or arguments.get(target.attr, "")
    return found


# ---------------------------------------------------------------- comparing
def public_names() -> dict[str, str]:
    """Every name of the contract, with the module that it comes from. Type variables are not names for others."""
    stub = module("contract")
    assert stub is not None
    headings = {
        number: words
        for number, line in enumerate(CONTRACT.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("# -----")
        for words in [line.strip("# -").split(":")[0].strip()]
    }
    names: dict[str, str] = {}
    for name, nodes in stub.bound.items():
        value = nodes[0].value if isinstance(nodes[0], ast.Assign) else None
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar":
            continue
        above = [words for number, words in headings.items() if number <= nodes[0].lineno]
        names[name] = SECTIONS.get(above[-1] if above else "", "tailrace")
    return names


def all_differences() -> list[str]:
    """Where the package is not what the contract says, in the contract's order."""
    result: list[str] = []
    for name, where in public_names().items():
        label = name if where == "tailrace" else f"{where.removeprefix('tailrace.')}.{name}"
        want, have = find("contract", name), find(where, name)
        assert want is not None
        result += [label] if have is None else list(differences(label, want, have))
    return result


def differences(label: str, want: Found, have: Found) -> Iterator[str]:
    """What differs between one name of the contract and ours."""
    wanted, ours = want.nodes[-1], have.nodes[-1]
    if isinstance(wanted, ast.ClassDef):
        if isinstance(ours, ast.ClassDef):
            yield from _class_differences(label, surface(want), surface(have))
        else:
            yield f"{label}: not a class"
    elif isinstance(wanted, ast.FunctionDef | ast.AsyncFunctionDef):
        functions = [node for node in have.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if functions:
            wanted_all = [node for node in want.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield from _function_differences(
                label, signatures(wanted_all, want.module), signatures(functions, have.module)
            )
        else:
            yield f"{label}: not a function"
    else:
        texts = [annotation_text(ast.Name(label), found.module) for found in (want, have)]
        if texts[0] != texts[1]:
            yield f"{label}: {texts[1]}"


def _class_differences(label: str, want: Surface, have: Surface) -> Iterator[str]:
    for base in set(want.bases) - {"Generic", "Protocol", "AbstractContextManager"} - set(have.bases):
        yield f"{label}: not a {base}"
    for name, text in want.fields.items():
        methods = have.methods.get(name, [])
        if name in have.fields:
            ours = have.fields[name]
        elif methods and methods[-1].form == "property":
            ours = methods[-1].returns
        else:
            yield f"{label}.{name}"
            continue
        if ours not in ("", text):
            yield f"{label}.{name}: {ours}"
    for name, wanted in want.methods.items():
        if name in have.methods:
            yield from _function_differences(f"{label}.{name}", wanted, have.methods[name])
        elif name == "__init__":
            missing = [p.name for p in wanted[0].parameters[1:] if p.name not in have.fields]
            yield from (f"{label}.__init__.{parameter}" for parameter in missing)
        elif wanted[0].form == "property" and name in have.fields:
            if have.fields[name] not in ("", wanted[0].returns):
                yield f"{label}.{name}: {have.fields[name]}"
        else:
            yield f"{label}.{name}"


def _function_differences(label: str, want: list[Signature], have: list[Signature]) -> Iterator[str]:
    """Overloads are matched whole first; what is left over is compared in order."""
    left = list(have)
    unmatched: list[tuple[int, Signature]] = []
    for number, wanted in enumerate(want, 1):
        exact = next((ours for ours in left if not list(signature_differences("", wanted, ours))), None)
        if exact is None:
            unmatched.append((number, wanted))
        else:
            left.remove(exact)
    for number, wanted in unmatched:
        place = label if len(want) == 1 else f"{label}#{number}"
        if left:
            yield from signature_differences(place, wanted, left.pop(0))
        else:
            yield place


def signature_differences(label: str, want: Signature, have: Signature) -> Iterator[str]:
    if want.form != have.form:
        yield f"{label}: {have.form}"
    ours = {parameter.name: parameter for parameter in have.parameters}
    for wanted in want.parameters:
        found = ours.pop(wanted.name, None)
        if found is None:
            yield f"{label}.{wanted.name}"
        elif not _same(wanted, found):
            default = "" if found.default is None else f" = {found.default}"
            yield f"{label}.{wanted.name}: {found.annotation or 'Any'}{default}"
            if wanted.kind != found.kind:
                yield f"{label}.{wanted.name}: {found.kind}"
    for extra in ours.values():
        if extra.kind not in ("keyword", "*", "**") or (extra.kind == "keyword" and extra.default is None):
            yield f"{label}.{extra.name}: not in the contract, and not additive"
    order = [[p.name for p in s.parameters if p.kind.startswith("positional")] for s in (want, have)]
    if order[1][: len(order[0])] != order[0] and set(order[0]) <= set(order[1]):
        yield f"{label}: {', '.join(order[1])}"
    if want.returns != have.returns and want.returns not in _bases_of(have.returns, have.module):
        yield f"{label} -> {have.returns}"


def _bases_of(name: str, module_name: str) -> list[str]:
    """A function may promise more than the contract: one class of windows where that says `Window`."""
    found = find(module_name, name)
    return surface(found).bases if found and isinstance(found.nodes[-1], ast.ClassDef) else []


def _same(want: Parameter, have: Parameter) -> bool:
    if want.kind != have.kind:
        return False
    if (want.name not in ("self", "cls") or want.annotation) and want.annotation != have.annotation:
        return False
    if want.default is None or have.default is None:
        return want.default == have.default
    return want.default in (ANY_DEFAULT, have.default)
