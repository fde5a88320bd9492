"""Whether a file of torch.export.save holds only what it should: a graph, tensors, sizes.

torch.export.load runs code from a file by four ways: pickled objects, compiled libraries, and the text of
sizes and of guards, which torch evaluates as Python. Pickles are refused while it loads
(`exported_program.py`); here the rest is, before it loads. So are operators that open files, by which a
program could write one as it runs. This is a fence and no sandbox.
Source: torch/export/pt2_archive/_package.py, torch/_export/serde/serialize.py and torch/export/_unlift.py of
2.14, the same in 2.6 but for guards; https://pytorch.org/docs/stable/export.html, "Never load data from an
untrusted source".
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jettison.core.errors import ModelError

_MEMBERS = re.compile(
    r"""(.*/)?(
      archive_format | archive_version | version | byteorder | \.data/[\w.]+ | \.\w+
    | models/[^/]+\.json
    | data/(weights|constants)/[^/]+_config\.json
    | data/(weights|constants)/[^/]+\.pt | data/weights/weight_\d+ | data/constants/tensor_\d+
    | data/sample_inputs/[^/]+\.pt
    | serialized_(exported_program\.json | (state_dict|constants|example_inputs)\.(pt|json))
    | extra(_files)?/.*
    )""",
    re.VERBOSE,
)
"""What torch 2.6 to 2.14 write for a program that is tensors and operators only."""

_GRAPHS = re.compile(r"(.*/)?(models/[^/]+|serialized_exported_program)\.json")
_NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Attribute, ast.Subscript,
    ast.Tuple,
)  # fmt: skip
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")
_NAMES = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Eq", "Ne", "Lt",
    "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality", "StrictLessThan", "LessThan",
    "StrictGreaterThan", "GreaterThan", "floor", "ceiling", "sqrt", "oo", "int_oo", "inf", "true", "false",
    "L", "math", "torch", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt",
    "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
    "IsNonOverlappingAndDenseIndicator",
}  # fmt: skip
"""Names in the text of sizes: sympy's and torch's own arithmetic, and the inputs (`L`) of guards."""
_ATTRIBUTES = {"size", "stride", "storage_offset"}
_FUNCTIONS = {"math": r"[a-z]\w*", "torch": r"sym_[a-z]+"}
"""Functions of modules that guards call: arithmetic."""
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+"
)
"""Operators of torch's own arithmetic, and of torchvision's."""
_FILES = re.compile(r".*from_file.*")
"""Operators that open a file of a given name, shared and writable."""
_TEXT = re.compile(r"[\w.+-]*")
_SPECIFICATION = re.compile(r'[\w\s"\\\[\]{}:,.+-]*')
"""How arguments are nested: JSON whose names torch puts into the text of guards, and no parentheses."""


def check_archive(path: Path) -> None:
    """Nothing, where the file holds a program and no code.

    Raises:
        ModelError: No such file, no program in it, or one of the parts that torch would run.
    """
    if not path.is_file():
        raise _bad(path, "there is no such file", "Give the path of a .pt2 file")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            graphs = [archive.read(name) for name in names if _GRAPHS.fullmatch(name)]
    except (zipfile.BadZipFile, OSError) as error:
        raise _bad(path, f"expected a file of torch.export.save, found {error}", "Save it again") from error
    strange = next((name for name in names if not _MEMBERS.fullmatch(name)), None)
    if strange is not None or len(set(names)) != len(names):
        raise _refused(path, f"the part {strange!r}" if strange else "parts of one name")
    if not graphs:
        raise _bad(path, "expected a file of torch.export.save, found no program in it", "Save it again")
    for graph in graphs:
        _check_program(_parsed(graph, path), path)


def _check_program(program: object, path: Path) -> None:
    for text in _texts_of(program, "in_spec"):
        if not _SPECIFICATION.fullmatch(text):
            raise _refused(path, f"arguments that are no names: {text[:80]!r}")
    for text in _evaluated(program):
        if not _is_arithmetic(text):
            raise _refused(path, f"a size or a guard that is no arithmetic: {text[:80]!r}")
    for text in _operators(program):
        if not _OPERATORS.fullmatch(text) or _FILES.fullmatch(text):
            raise _refused(path, f"an operator that is no arithmetic of torch's: {text[:80]!r}")


def _parsed(graph: bytes, path: Path) -> object:
    try:
        found: object = json.loads(graph)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its program is no JSON ({error})", "Save it again") from error
    return found


def _evaluated(program: object) -> Iterator[str]:
    """Every text that torch evaluates as Python or puts into Python."""
    yield from _texts_of(program, "expr_str")
    yield from _texts_of(program, "guards_code")
    yield from (f"L[{name!r}]" for name in _texts_of(program, "forward_arg_names"))


def _operators(program: object) -> Iterator[str]:
    """What each node of the graph calls, subgraphs included."""
    for found in _mappings(program):
        if isinstance(found.get("target"), str) and "inputs" in found and "outputs" in found:
            yield found["target"]


def _texts_of(program: object, key: str) -> Iterator[str]:
    """The texts under that key, alone or in lists, wherever it stands."""
    for found in _mappings(program):
        value = found.get(key)
        values = value if isinstance(value, list) else [value]
        yield from (text for text in values if isinstance(text, str))


def _mappings(program: object) -> Iterator[dict[str, Any]]:
    """Every mapping in a JSON document, wherever it stands."""
    waiting = [program]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            waiting += found.values()
            yield found


def _is_arithmetic(text: str) -> bool:
    """Whether it is an expression of known names, numbers and words only."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, _NODES) and _is_known(node) for node in nodes)


def _is_known(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _NAMES or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Attribute):
        place = node.value.id if isinstance(node.value, ast.Name) else ""
        return node.attr in _ATTRIBUTES or re.fullmatch(_FUNCTIONS.get(place, ""), node.attr) is not None
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or _TEXT.fullmatch(node.value) is not None
    return True


def _refused(path: Path, found: str) -> ModelError:
    return _bad(
        path,
        f"expected a graph and tensors only, found {found}, which torch would run or load as code",
        "Export a module without custom classes and compiled parts, or give the function that makes it as "
        "`torch: package.module:function`, which may run code",
    )


def _bad(path: Path, detail: str, fix: str) -> ModelError:
    return ModelError(f"model {path}", detail=detail, fix=fix)
