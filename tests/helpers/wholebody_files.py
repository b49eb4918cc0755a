"""Random COCO-WholeBody annotations and results, with everything that occurs in real ones."""

from __future__ import annotations

import numpy as np

from kd_pose.wholebody_keypoints import COUNT, PARTS

KEYS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
VALID = (None, "foot_valid", "face_valid", "lefthand_valid", "righthand_valid")


def split_points(points):
    """Flat lists by COCO's keys of (133, 3)."""
    return {key: points[part].ravel().tolist() for key, part in zip(KEYS, PARTS.values())}


def annotation(number, image_id, points, box, area, crowd=0):
    valid = {key: bool((points[part, 2] > 0).any())
             for key, part in zip(VALID, PARTS.values()) if key}
    return {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": crowd,
            "bbox": [float(v) for v in box], "area": float(area),
            "num_keypoints": int((points[:17, 2] > 0).sum()), **valid, **split_points(points)}


def random_person(rng, width=640, height=480):
    """Points (133, 3), box and area; parts and single points are missing now and then."""
    size = np.exp(rng.uniform(np.log(20), np.log(400))) * np.array([0.5, 1.0])
    corner = rng.uniform(0, 1, 2) * (width, height) - size / 2
    points = np.concatenate([corner + rng.random((COUNT, 2)) * size,
                             rng.choice([0.0, 0.37, 1.0, 2.0], (COUNT, 1), p=[.15, .15, .3, .4])],
                            axis=1)
    for part in PARTS.values():
        if rng.random() < 0.35:
            points[part] = 0.0
    points[points[:, 2] == 0] = 0.0
    return points, (*corner, *size), float(np.prod(size) * rng.uniform(0.3, 0.9))


def random_annotations(rng, images=60, people=5):
    """Contents of an annotation file: some pictures without people, some people a crowd."""
    data = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for image in rng.permutation(images):
        data["images"].append({"id": int(3 * image + 7), "file_name": f"{image:06d}.jpg",
                               "width": 640, "height": 480})
        for _ in range(rng.integers(0, people + 1)):
            points, box, area = random_person(rng)
            crowd = int(rng.random() < 0.08)
            data["annotations"].append(annotation(
                len(data["annotations"]) + 1, int(3 * image + 7),
                np.zeros_like(points) if crowd else points, box, area, crowd))
    return data


def random_results(rng, data, extra=4, ties=True):
    """Estimates of the people of an annotation file, and some of nobody, as result entries."""
    results = []
    for image in data["images"]:
        people = [item for item in data["annotations"] if item["image_id"] == image["id"]]
        truths = [np.concatenate([np.reshape(item[key], (-1, 3)) for key in KEYS])
                  for item in people for _ in range(rng.integers(0, 4))]
        truths += [random_person(rng)[0] for _ in range(rng.integers(0, extra + 1))]
        for points in truths:
            size = max(np.ptp(points[:, :2], axis=0).max(), 20.0)
            noise = np.exp(rng.uniform(np.log(1e-4), np.log(0.1))) * size
            moved = points[:, :2] + noise * rng.standard_normal((COUNT, 2))
            scores = rng.random((COUNT, 1))
            for part in PARTS.values():
                scores[part] *= rng.random() > 0.1
            score = rng.random()
            results.append({"image_id": image["id"], "category_id": 1,
                            "score": round(score, 1) if ties else score,
                            **split_points(np.concatenate([moved, scores], axis=1))})
    return [results[row] for row in rng.permutation(len(results))]
