"""Models whose answers are known. Everything in this folder needs ROS 2 and the built messages."""

import pytest


@pytest.fixture(scope="session")
def scene():
    from helpers.tiny_models import example_scene

    return example_scene()


@pytest.fixture(scope="session")
def models(tmp_path_factory, scene):
    """Parameters of a pose model and a detector that answer with the truth of `scene`."""
    pytest.importorskip("onnx")
    from helpers.tiny_models import make_models

    pose, detector = make_models(tmp_path_factory.mktemp("models"), scene)
    return {"model_path": str(pose), "detector_path": str(detector), "warmup_iterations": 1,
            "threads": 1}
