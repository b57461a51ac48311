"""A captured graph computes what the module computes, is data, and holds only what the list allows."""

import json
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from disaggregation.runtime.some_graphs import Language, Layers, Towers, captured
from plumbline.disaggregation.runtime.graphs.capture import capture
from plumbline.disaggregation.runtime.graphs.graph import Graph, Output, parsed, part
from plumbline.disaggregation.runtime.graphs.program import Program
from plumbline.disaggregation.runtime.graphs.rewrites import chosen, last_position
from plumbline.disaggregation.runtime.models.weights import RefusedError

CPU = torch.device("cpu")
TOKENS = {"tokens": torch.arange(10).reshape(2, 5)}


def language():
    return captured(Language(), TOKENS, ("logits", "state"), ("logits",), (2,), states=("state",))


def run(graph, weights, inputs):
    program = Program(graph, CPU)
    program.check(1 << 20)
    return program.run(program.prepare(weights), inputs)


def test_a_graph_that_travelled_as_json_gives_what_the_module_gives():
    program, weights, expected = language()
    found = run(parsed(program.at(2).json_text.encode()), weights, TOKENS)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one)


def test_nodes_have_residency_modality_and_cost():
    inputs = {"image": torch.randn(2, 4), "question": torch.tensor([[1, 2], [3, 4]])}
    modalities = {"image": "image", "question": "text"}
    program, _, _ = captured(Towers(), inputs, ("answers", "seen", "read"), ("answers",), (2,), modalities=modalities)
    graph = program.at(2)
    assert {node.modality for node in graph.nodes} == {"image", "text", "fusion"}
    linear = [node for node in graph.nodes if node.op == "aten.linear.default"]
    assert [node.flops for node in linear] == [2 * 2 * 4 * 8, 2 * 2 * 16 * 3]
    assert linear[0].parts == [(2 * 2 * 4 * 8, 4 * (2 * 4 + 8 * 4 + 8 + 2 * 8))]
    states = [node for node in language()[0].at(2).nodes if node.residency == "state"]
    assert len(states) == 1


class Attention(nn.Module):
    def forward(self, value):
        return nn.functional.scaled_dot_product_attention(value, value, value)


def test_attention_counts_as_two_products_and_what_lies_between():
    batch, heads, tokens, width = 2, 3, 32, 16
    value = torch.randn(batch, heads, tokens, width)
    graph, _ = capture(Attention(), {"value": value}, ["made"], model="test", phase="forward")
    (node,) = graph.nodes
    scores, values = 4 * batch * heads * tokens * tokens, 4 * value.numel()
    product = (2 * batch * heads * tokens * tokens * width, scores + 2 * values)
    assert [part for part in node.parts if part[0]] == [product, product]
    assert (0, 2 * scores) in node.parts  # the softmax


class Views(nn.Module):
    """A transposed view that is copied, and a reshape that needs no copy."""

    def forward(self, value):
        return value.transpose(0, 1).contiguous(), value.reshape(-1) + 1


def test_views_move_nothing_and_copies_do():
    graph, _ = capture(Views(), {"value": torch.randn(3, 4)}, ["copied", "added"], model="test", phase="forward")
    moved = {node.name: node.parts for node in graph.nodes}
    copied, added = (graph.outputs[name].ref for name in ("copied", "added"))
    assert moved[copied] == moved[added] == [(0, 2 * 3 * 4 * 4)]
    assert [parts for name, parts in moved.items() if name not in (copied, added)] == [[], []]


def test_what_no_input_decides_is_computed_once():
    image = torch.randn(3, 8)
    program, weights, expected = captured(Layers(), {"image": image}, ("image",), ("image",), (3,))
    graph = program.at(3)
    assert "aten.arange.default" in {node.op for node in graph.nodes if node.residency == "persistent"}
    runnable = Program(graph, CPU)
    prepared = runnable.prepare(weights)
    for _ in range(2):
        torch.testing.assert_close(runnable.run(prepared, {"image": image})["image"], expected["image"])


def test_a_part_computes_only_what_its_outputs_need():
    program, weights, expected = language()
    small = part(program.at(2), {"state": program.at(2).outputs["state"]})
    assert list(small.weights) == ["embedding.weight"]
    torch.testing.assert_close(run(small, weights, TOKENS)["state"], expected["state"])


class Last(nn.Module):
    """What a language model computes of the hidden values of the last position."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, hidden):
        return self.head(hidden)[:, -1].argmax(-1)


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_position_and_its_token_cost_what_a_module_of_them_alone_costs(bias):
    """The weights of the head are read whole, however few positions go through it."""
    model = Language()
    model.head = nn.Linear(8, 11, bias=bias)
    program, _, _ = captured(model, TOKENS, ("logits", "state"), ("logits",), (2,))
    found = chosen(last_position(program.at(2), "logits"), "logits", "token")
    alone, _ = capture(Last(model.head), {"hidden": torch.ones(2, 1, 8)}, ["token"], model="test", phase="forward")
    for op in ("aten.linear.default", "aten.argmax.default"):
        told, expected = ([node.parts for node in graph.nodes if node.op == op] for graph in (found, alone))
        assert told == expected
        assert len(told) == 1


def test_the_last_position_alone_is_computed_and_its_token_chosen():
    program, weights, expected = language()
    last = last_position(program.at(2), "logits")
    torch.testing.assert_close(run(last, weights, TOKENS)["logits"], expected["logits"][:, -1:])
    heads = [[node.flops for node in one.nodes if node.flops] for one in (program.at(2), last)]
    assert heads[0][-1] == 5 * heads[1][-1] > 0
    found = run(chosen(last, "logits", "token"), weights, TOKENS)
    assert torch.equal(found["token"], expected["logits"][:, -1].argmax(-1))
    assert "logits" not in found


class Writes(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        self.count.add_(1)
        return x + self.count


class Inverts(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x)


@pytest.mark.parametrize(
    ("module", "reason"), [(Writes(), "the module changes count"), (Inverts(), "unknown operation 'aten.linalg_inv")]
)
def test_what_a_graph_cannot_hold_is_refused(module, reason):
    with pytest.raises(RefusedError, match=reason):
        capture(module, {"x": torch.eye(2)}, ("y",), model="test", phase="forward")


def changed(path, value):
    """The JSON of a good graph with one value changed."""
    values = json.loads(language()[0].at(2).json_text)
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("nodes", 0, "op"), "aten.from_file.default", "unknown operation"),
        (("nodes", 0, "op"), "os.system", "unknown operation"),
        (("nodes", 0, "op"), "aten.add.__class__", "unknown operation"),
        (("nodes", 0, "op"), "aten.add_.Tensor", "unknown operation"),
        (("nodes", 0, "args"), [{"ref": "nobody"}], "which is not there yet"),
        (("nodes", 0, "args"), [{"code": "print"}], "is not known"),
        (("nodes", 0, "args"), [[[[[[1]]]]]], "nested too deep|aten.embedding"),
        (("nodes", 0, "residency"), "persistent", "reads what changes with every call"),
        (("nodes", 1, "outputs", 0, "shape"), [2, 5, 9], "other types or shapes"),
        (("nodes", 1, "name"), "tokens", "two values called"),
        (("nodes", 1, "code"), "x", "does not follow its schema"),
        (("outputs", "logits", "ref"), "nobody", "is not there"),
        (("weights", "head.weight", "dtype"), "object", "unknown dtype"),
        (("weights", "head.weight", "shape"), [11, -8], "does not follow its schema"),
    ],
)
def test_a_graph_that_breaks_a_rule_is_refused(path, value, reason):
    with pytest.raises(RefusedError, match=reason):
        Program(parsed(changed(path, value)), CPU).check(1 << 20)


def test_a_graph_that_takes_too_much_memory_is_refused_before_it_has_any():
    values = json.loads(language()[0].at(2).json_text)
    huge = {"name": "huge", "op": "aten.ones.default", "args": [[1 << 20, 1 << 20]]}
    huge["outputs"] = [{"dtype": "float32", "shape": [1 << 20, 1 << 20]}]
    values["nodes"].append(huge)
    values["outputs"]["huge"] = {"ref": "huge"}
    with pytest.raises(RefusedError, match=r"the graph takes \d+ bytes or more: a call may take 1048576"):
        Program(parsed(json.dumps(values).encode()), CPU).check(1 << 20)


TEXT = language()[0].at(2).json_text.encode()


@given(st.integers(0, len(TEXT) - 1), st.binary(max_size=3))
def test_a_mutated_graph_is_refused_or_runs(place, bytes_put_in):
    with suppress(RefusedError):
        Program(parsed(TEXT[:place] + bytes_put_in + TEXT[place + 1 :]), CPU).check(1 << 20)


def test_the_schema_names_what_a_node_holds():
    assert {"op", "residency", "modality", "parts"} <= Graph.model_json_schema()["$defs"]["Node"]["properties"].keys()
    assert Output.model_json_schema()["properties"]["residency"]["enum"] == ["persistent", "state", "ephemeral"]
