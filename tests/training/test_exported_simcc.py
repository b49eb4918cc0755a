"""From an exported whole-body network back to one that learns on and teaches."""

from __future__ import annotations

import pytest
import torch

onnx = pytest.importorskip("onnx")

from helpers.wholebody_folder import write_people, write_recipe
from kd_pose_training import cli
from kd_pose_training.engine.checkpoint import CheckpointError
from kd_pose_training.engine.log import read_log
from kd_pose_training.export_wholebody import MMPOSE_BORDER, export_wholebody
from kd_pose_training.models.exported_simcc import read_exported_simcc
from kd_pose_training.models.exported_weights import restore_batch_norms
from kd_pose_training.models.simcc_net import build_simcc_net
from kd_pose_training.models.simcc_weights import build_from, read_weights
from kd_pose_training.recipe import load_recipe
from kd_pose_training.training.wholebody import bring, load_network

torch.set_num_threads(1)
SIZE = (32, 64)


def _network(learnt=True):
    """With the numbers that only a training changes changed, unless it is a fresh one."""
    torch.manual_seed(5)
    network = build_simcc_net("rtmpose_n", input_size=SIZE)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if learnt and value.ndim < 3 and value.is_floating_point() and "weight" not in name:
                value.uniform_(0.5, 1.5)
        if learnt:
            network.head.gau.o.weight.normal_(std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(8, 3, *SIZE[::-1], generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return export_wholebody(_network(), tmp_path_factory.mktemp("learnt") / "people.onnx",
                            border_value=MMPOSE_BORDER)


@torch.no_grad()
def _answers(network, pictures):
    return torch.cat([part.flatten() for part in network(pictures)])


@pytest.mark.parametrize("learnt", [True, False])
def test_computes_what_was_exported(learnt, path, tmp_path, pictures):
    # Of a fresh network the exporter drops terms of zero and gives equal numbers one name.
    original = _network(learnt)
    weights = read_weights(path if learnt else export_wholebody(original, tmp_path / "a.onnx"))
    assert weights.size == "rtmpose_n" and weights.input_size == SIZE
    again = build_from(weights).eval()
    expected = _answers(original, pictures)
    assert torch.allclose(_answers(again, pictures), expected,
                          rtol=1e-3, atol=1e-4 * expected.abs().max())
    for name, value in original.head.state_dict().items():
        assert torch.equal(again.head.state_dict()[name], value), name


def test_norms_get_the_statistics_of_pictures(path, pictures):
    network = build_from(read_weights(path)).eval()
    before = _answers(network, pictures)
    restore_batch_norms(network, network.backbone, pictures.split(4))
    spread = (before - before.mean()).norm()
    assert (_answers(network, pictures) - before).norm() < 1e-3 * spread
    variance = network.backbone.stem[0].bn.running_var
    assert variance.min() > 0 and (variance != 1).all()


class Folder:
    """People, a recipe, and a finished run with its exported file."""

    def __init__(self, path):
        self.path, self.file = path, path / "plain.onnx"
        self.recipe = write_recipe(path, write_people(path / "people"))
        assert self.train("plain") == 0
        assert cli.main(["export", str(path / "plain/last.pt"), "-o", str(self.file)]) == 0

    def train(self, run, *settings):
        sets = [part for setting in settings for part in ("--set", setting)]
        return cli.main(["train", str(self.recipe), "-o", str(self.path / run), *sets])

    def losses(self, run):
        return [{name: line[name] for name in ("keypoints", "feature", "logit", "total")
                 if name in line} for line in read_log(self.path / run) if "total" in line]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("runs"))


def test_a_training_goes_on_where_the_file_ended(runs):
    weights = read_weights(runs.file)
    recipe = load_recipe(runs.recipe, [f"model.weights={runs.file}"])
    assert weights.state["config"]["task"] == "wholebody" and weights.state["iteration"] == 4
    parts = bring(recipe)
    expected, _, _ = load_network(runs.path / "plain/last.pt")
    crops = torch.cat([parts.train_set[row].to("cpu").images for row in range(4)])
    assert torch.allclose(_answers(parts.task.network.eval(), crops), _answers(expected, crops),
                          rtol=1e-3, atol=1e-4)
    variance = parts.task.network.backbone.stem[0].bn.running_var
    assert (variance != 1).all()  # those of the file add a bias and have no statistics
    assert runs.train("more", f"model.weights={runs.file}", "trainer.iterations=1") == 0


@pytest.mark.parametrize("stage", [1, 2])
def test_the_file_teaches_as_its_checkpoint_does(runs, stage):
    for run, teacher in (("from_file", runs.file), ("from_run", runs.path / "plain/last.pt")):
        assert runs.train(f"{run}{stage}", f"distill={{stage: {stage}, teacher: {teacher}}}",
                          "trainer.iterations=2") == 0
    pairs = zip(runs.losses(f"from_file{stage}"), runs.losses(f"from_run{stage}"), strict=True)
    for found, expected in pairs:
        assert found == pytest.approx(expected, rel=1e-3)


def test_stage_two_of_a_file_leaves_norms_with_statistics(runs):
    """A later training of the whole network starts from what stage 2 leaves."""
    assert runs.train("second", f"distill={{stage: 2, teacher: {runs.file}}}",
                      "trainer.iterations=1") == 0
    network, _, _ = load_network(runs.path / "second/last.pt")
    variance = network.backbone.stem[0].bn.running_var
    assert (variance != 1).all()


def _refused(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_other_files_are_refused(path, tmp_path, runs, capsys):
    _refused(tmp_path / "absent.onnx", "no such checkpoint")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path.read_bytes()[:1000])
    _refused(damaged, "truncated|not an ONNX|damaged")
    with pytest.raises(CheckpointError, match="part is 'student', allowed here: auto"):
        read_weights(path, "student")
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "Sigmoid":  # another network with the same weights
            node.op_type = "Tanh"
    changed = tmp_path / "changed.onnx"
    onnx.save(model, str(changed))
    _refused(changed, "do not give its own simcc_x again")
    for node in model.graph.node:  # somebody else's names
        node.input[:] = [name.replace("network.head", "net.head") for name in node.input]
    for item in model.graph.initializer:
        item.name = item.name.replace("network.head", "net.head")
    onnx.save(model, str(changed))
    _refused(changed, "holds none of the networks rtmpose_n")
    for node in model.graph.node:
        node.input[:] = [name.replace("final_layer", "first") for name in node.input]
    for item in model.graph.initializer:
        item.name = item.name.replace("final_layer", "first")
    onnx.save(model, str(changed))
    _refused(changed, "was not written by kd-pose-train export")
    assert runs.train("bad", f"model.weights={changed}") == 2
    assert str(changed) in capsys.readouterr().err and not (runs.path / "bad").exists()


def test_weights_that_are_not_finite_are_refused(path, tmp_path):
    model = onnx.load(str(path))
    name = "backbone.stem.0.conv.weight"
    item, = (item for item in model.graph.initializer if item.name == f"network.{name}")
    values = onnx.numpy_helper.to_array(item).copy()
    values[0] = float("nan")
    item.CopyFrom(onnx.numpy_helper.from_array(values, item.name))
    onnx.save(model, str(tmp_path / "nan.onnx"))
    _refused(tmp_path / "nan.onnx", f"nan.onnx: {name} has values that are not finite")


def test_a_file_of_another_size_is_refused(runs, path, capsys):
    assert read_exported_simcc(path)[1] is None  # no run is known of it
    for file in (path, runs.file):
        assert runs.train("bad", f"model.weights={file}", "model.size=rtmpose_t") == 2
        message = capsys.readouterr().err
        assert str(file) in message and "backbone.stem.0.conv.weight" in message


def test_a_file_is_not_exported_again(runs, capsys):
    copy = runs.path / "again.onnx"
    assert cli.main(["export", str(runs.file), "-o", str(copy)]) == 2
    assert "plain.onnx" in capsys.readouterr().err and not copy.exists()
