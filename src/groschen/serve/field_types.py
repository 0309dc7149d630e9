"""What a record takes at a path of the body, and whole numbers that a client wrote as 4.0.

JSON has one kind of number, and languages that have only one too (JavaScript, Lua) may write an integer with
a point. Leaves out reading the body (`fields.py`).
"""

from collections.abc import Sequence
from functools import cache

import msgspec

Step = str | int  # of a path: a field's name or a place in a list

_EXACT = 2.0**53  # beyond it a float64 that is whole may stand for another integer


def types_at(record: type[msgspec.Struct], steps: Sequence[Step]) -> list[msgspec.inspect.Type]:
    """The types that a value at this path may have; a number stands for any place in a list."""
    kinds = _alternatives(_type_of(record))
    for step in steps:
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
    return kinds


def with_whole_numbers(value: object, record: type[msgspec.Struct]) -> object:
    """A copy in which a float without a fraction is an int, where the record takes an int and no float."""
    return _whole(value, _alternatives(_type_of(record)))


@cache
def _type_of(record: type[msgspec.Struct]) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(record)


def _alternatives(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    return list(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else [kind]


def _inside(kind: msgspec.inspect.Type, step: Step) -> list[msgspec.inspect.Type]:
    if isinstance(step, int) and isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return _alternatives(kind.item_type)
    if isinstance(kind, msgspec.inspect.StructType):
        return [
            inner for each in kind.fields if each.encode_name == step for inner in _alternatives(each.type)
        ]
    return []


def _whole(value: object, kinds: Sequence[msgspec.inspect.Type]) -> object:
    if isinstance(value, float):
        takes_int = any(isinstance(kind, msgspec.inspect.IntType) for kind in kinds)
        takes_float = any(isinstance(kind, msgspec.inspect.FloatType) for kind in kinds)
        is_exact = value.is_integer() and abs(value) <= _EXACT
        return int(value) if takes_int and not takes_float and is_exact else value
    if isinstance(value, dict):
        return {
            name: _whole(item, [inner for kind in kinds for inner in _inside(kind, name)])
            for name, item in value.items()
        }
    if isinstance(value, list):
        items = [inner for kind in kinds for inner in _inside(kind, 0)]
        return [_whole(item, items) for item in value] if items else value
    return value
