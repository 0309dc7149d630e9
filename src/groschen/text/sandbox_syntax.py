"""What the sandbox changes in a template before it is compiled: charges in every loop, and the generation
tag.

The environment that compiles the template must have the methods `charge`, `charged`, `charged_loop`,
`copied`, `joined` and `searched`, and `state.span_marks` (`groschen.text.sandbox`). Leaves out: what anything
costs, and the charges for filters and tests.
"""

from typing import cast

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.visitor import NodeTransformer


class GenerationTag(Extension):
    """`{% generation %}` around what the assistant says; a render that asks for spans gets it between two
    marks.
    """

    tags = frozenset({"generation"})  # type: ignore[assignment]  # jinja2 only reads it

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call of `_marked` with the body as its caller."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        marks = self.environment.state.span_marks  # type: ignore[attr-defined]
        return f"{marks[0]}{caller()}{marks[1]}" if marks else str(caller())


class Charging(NodeTransformer):
    """Puts the sandbox's charges into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Charge for each turn, by how much stands in the loop."""
        weight = 1 + sum(1 for _ in node.find_all(nodes.Node)) // 16
        self.generic_visit(node)
        node.iter = _call("charged_loop", [cast("nodes.Expr", node.iter), nodes.Const(weight)], node)
        if node.recursive:  # it may call itself with other items
            turn = nodes.ExprStmt(_call("charge", [nodes.Const(weight)], node))
            node.body.insert(0, turn.set_lineno(node.lineno))
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Charge for slices: each is a copy."""
        self.generic_visit(node)
        is_slice = isinstance(node.arg, nodes.Slice) and node.ctx == "load"
        return _call("copied", [node], node) if is_slice else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """The operator ~ goes through `joined`."""
        self.generic_visit(node)
        return _call("joined", list(node.nodes), node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Charge for both sides: comparing and searching cost what the values hold."""
        self.generic_visit(node)
        node.expr = _charged(node.expr)
        for operand in node.ops:
            operand.expr = _charged(operand.expr, "searched" if operand.op in ("in", "notin") else "charged")
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        """Charge for lists, so that none grows by holding itself."""
        self.generic_visit(node)
        return _charged(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        """Charge for objects, as for lists."""
        self.generic_visit(node)
        return _charged(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """Charge for tuples, as for lists."""
        self.generic_visit(node)
        return _charged(node) if node.ctx == "load" else node


def _charged(node: nodes.Expr, method: str = "charged") -> nodes.Expr:
    # A literal text or number needs no charge at run time.
    return node if isinstance(node, nodes.Const) else _call(method, [node], node)


def _call(method: str, args: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(method), args, [], None, None)
    call.set_lineno(at.lineno)
    return call
