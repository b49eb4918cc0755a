"""Sets of people of whom only some have keypoints."""

import dataclasses
import json

import numpy as np
import pytest

from helpers.wholebody_files import random_annotations
from kd_pose_training import strict
from kd_pose_training.data.coco_wholebody import read_coco_wholebody
from kd_pose_training.data.known_labels import labelled_first, labels_are_known
from kd_pose_training.data.person_augment import stage_schedule
from kd_pose_training.data.person_sampler import person_sampler
from kd_pose_training.wholebody_config import WholebodyTrainConfig


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "truth.json"
    path.write_text(json.dumps(random_annotations(np.random.default_rng(2), images=300)))
    return read_coco_wholebody(path, path.parent, check_images=False)


def names(table):
    return {table.file_name[image] for image in table.image}


def test_a_share_of_the_pictures_for_good_and_small_shares_within_large_ones(table):
    tenth, half = (labels_are_known(table, share) for share in (0.1, 0.5))
    assert np.mean(tenth) == pytest.approx(0.1, abs=0.05)
    assert np.mean(half) == pytest.approx(0.5, abs=0.08)
    assert not (tenth & ~half).any() and labels_are_known(table, 1.0).all()
    # Neither the folder nor the order matters.
    moved = dataclasses.replace(table.select(np.arange(len(table))[::-1]), folders=("elsewhere",))
    assert names(labelled_first(moved, 0.1, 0.0)[0]) == names(labelled_first(table, 0.1, 0.0)[0])


def test_everybody_has_keypoints_unless_somebody_says_otherwise(table):
    assert labelled_first(table, 1.0, 0.0) == (table, ())


def test_without_the_others_only_those_with_keypoints_are_left(table):
    known, mix = labelled_first(table, 0.3, 0.0)
    expected = np.flatnonzero(labels_are_known(table, 0.3)[table.image])
    assert mix == () and np.array_equal(known.annotation_id, table.annotation_id[expected])
    assert np.array_equal(known.visibility, table.visibility[expected])


def test_the_others_keep_their_box_and_lose_their_keypoints(table):
    both, mix = labelled_first(table, 0.3, 0.25)
    count = int(labels_are_known(table, 0.3)[table.image].sum())
    assert mix == ((count, 0.75), (len(table) - count, 0.25))
    row_of = {number: row for row, number in enumerate(table.annotation_id.tolist())}
    rows = np.array([row_of[number] for number in both.annotation_id.tolist()])
    assert sorted(rows.tolist()) == list(range(len(table)))
    for name in ("box_xywh", "annotation_id"):
        assert np.array_equal(getattr(both, name), getattr(table, name)[rows])
    assert [both.image_path(i) for i in both.image] == [table.image_path(i)
                                                        for i in table.image[rows]]
    for name in ("xy", "visibility", "valid"):
        here, there = getattr(both, name), getattr(table, name)
        assert np.array_equal(here[:count], there[rows[:count]])
        assert not here[count:].any() and there[rows[count:]].any()


def test_batches_have_their_share_of_both(table):
    both, mix = labelled_first(table, 0.3, 0.25)
    sampler = person_sampler(both, stage_schedule(10))(len(both), 16, 3, 0, 10, mix=mix)
    for batch in sampler:
        assert sum(index >= mix[0][0] for index, _, _ in batch) == 4


@pytest.mark.parametrize(("share", "message"), [(1e-6, "0 people with and"),
                                                (0.999999, "and 0 without keypoints")])
def test_one_of_both_is_missing(table, share, message):
    with pytest.raises(ValueError, match=f"data.label_share: .*{message}.*both must be there"):
        labelled_first(table, share, 0.5)


@pytest.mark.parametrize(("data", "message"), [
    ({"label_share": 0.0}, "label_share is 0.0"),
    ({"label_share": 1.5}, "label_share is 1.5"),
    ({"label_share": 0.5, "unlabelled_share": 1.0}, "unlabelled_share is 1.0"),
    ({"unlabelled_share": 0.5}, "unlabelled_share is 0.5.*everybody has keypoints"),
    ({"label_share": 0.5, "unlabelled_share": 0.5}, "unlabelled_share is 0.5.*only a teacher"),
])
def test_mistakes_in_a_recipe(data, message):
    with pytest.raises(ValueError, match=message):
        strict.from_dict(WholebodyTrainConfig,
                         {"task": "wholebody", "data": {"train": ["a:b"], **data}}, "a.yaml")


def test_with_a_teacher_the_others_may_be_drawn():
    config = strict.from_dict(WholebodyTrainConfig, {
        "task": "wholebody", "data": {"train": ["a:b"], "label_share": 0.1,
                                      "unlabelled_share": 0.5},
        "distill": {"teacher": "runs/teacher"}}, "a.yaml")
    assert config.data.unlabelled_share == 0.5
