"""A model file that would read other files or run other code is refused before the engine sees it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from gripwire.errors import UserError
from gripwire_reward import bundle as bundles
from gripwire_reward.graph_check import refuse_strange
from gripwire_reward.scorer import Scorer
from tests.reward import tiny


def _graph() -> onnx.ModelProto:
    return onnx.load_from_string(tiny.graph())


def _refusal(model: bytes) -> str:
    with pytest.raises(UserError) as refused:
        refuse_strange(model, "model.onnx")
    return str(refused.value)


def _external(tensor: TensorProto, location: str = "/etc/passwd") -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def test_an_ordinary_model_passes() -> None:
    refuse_strange(tiny.graph(), "model.onnx")


def test_weights_in_another_file_are_refused_as_onnx_itself_writes_them(tmp_path: Path) -> None:
    model = _graph()
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save_model(model, str(tmp_path / "model.onnx"))
    assert "a tensor's data lies in another file" in _refusal((tmp_path / "model.onnx").read_bytes())


def test_a_bundle_whose_model_names_a_file_of_this_machine_is_refused(tmp_path: Path) -> None:
    model = _graph()
    _external(model.graph.initializer[0])
    made = tiny.make(tmp_path / "bundles", model=model.SerializeToString(), check=False)
    with pytest.raises(UserError, match="a tensor's data lies in another file, which is never opened"):
        Scorer(bundles.load(made.path))


@pytest.mark.parametrize(
    "place", ["constant", "branch", "sparse", "function", "location alone", "data alone"]
)
def test_a_tensor_in_another_file_is_found_wherever_it_hides(place: str) -> None:
    model, tensor = _graph(), numpy_helper.from_array(np.zeros(3, np.float32), "t")
    _external(tensor)
    if place == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif place == "branch":
        branch = helper.make_graph([], "then", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    elif place == "sparse":
        indices = numpy_helper.from_array(np.zeros(3, np.int64), "i")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [9]))
    elif place == "function":
        constant = helper.make_node("Constant", [], ["c"], value=tensor)
        opset = helper.make_opsetid("", 17)
        model.functions.append(helper.make_function("", "F", [], ["c"], [constant], [opset]))
    elif place == "location alone":
        del tensor.external_data[:]
        model.graph.initializer.append(tensor)
    else:
        tensor.ClearField("data_location")
        model.graph.initializer.append(tensor)
    assert "a tensor's data lies in another file" in _refusal(model.SerializeToString())


def test_an_operator_that_is_not_onnxs_own_is_refused(tmp_path: Path) -> None:
    model = _graph()
    model.graph.node.append(helper.make_node("Shell", ["image"], ["out"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "it has operators of `com.example`" in _refusal(model.SerializeToString())
    made = tiny.make(tmp_path / "bundles", model=model.SerializeToString(), check=False)
    with pytest.raises(UserError, match="only ONNX's own are run"):
        Scorer(bundles.load(made.path))


def test_an_operator_of_another_domain_is_found_inside_a_branch() -> None:
    model = _graph()
    branch = helper.make_graph([helper.make_node("Shell", [], ["o"], domain="com.example")], "then", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    assert "it has operators of `com.example`" in _refusal(model.SerializeToString())


@pytest.mark.parametrize(
    "data", [b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\x3b", b"\xff" * 20, b"\x80", b"\x3a\x05ab"]
)
def test_what_is_no_model_is_refused_in_one_sentence(data: bytes) -> None:
    assert "not an ONNX model" in _refusal(data)


def test_a_model_nested_without_end_is_refused() -> None:
    data = b""
    for _ in range(200):  # a graph in an attribute in a node, again and again
        for field in (6, 5, 1):
            size = len(data)
            length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
            data = bytes([field << 3 | 2]) + length + data
    size = len(data)
    assert "levels deep" in _refusal(b"\x3a" + bytes([size & 0x7F | 0x80, size >> 7]) + data)


def test_any_cut_or_changed_model_is_looked_through_without_a_crash() -> None:
    model = tiny.graph()
    rng = np.random.default_rng(7)
    for _ in range(3000):
        broken = bytearray(model[: rng.integers(1, len(model) + 1)])
        broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            refuse_strange(bytes(broken), "model.onnx")
        except UserError as e:
            assert len(str(e)) < 400
