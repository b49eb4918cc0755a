"""A data set of made-up crops for tests of the trainer: the answer can be read off the image."""

from __future__ import annotations

import torch

from kd_pose.votes import VoteGrid
from kd_pose_training.data.batch import VoteBatch


class FakeVotes(torch.utils.data.Dataset):
    """``(index, seed)`` -> one-image batch: class in the mean grey, ten random positive cells."""

    def __init__(self, grid: VoteGrid, keypoints: int = 8, classes: int = 2,
                 length: int = 24) -> None:
        self.grid, self.keypoints, self.classes, self.length = grid, keypoints, classes, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> VoteBatch:
        index, seed = key
        rng = torch.Generator().manual_seed(seed)
        (width, height), cells = self.grid.input_size_wh, self.grid.num_cells
        label = index % self.classes
        chosen = torch.randperm(cells, generator=rng)[:10]
        cell_class = torch.full((1, cells), -1)
        cell_instance = torch.full((1, cells), -1)
        cell_class[0, chosen], cell_instance[0, chosen] = label, 0
        K = torch.tensor([[[300.0, 0, width / 2], [0, 300.0, height / 2], [0, 0, 1]]])
        points = torch.rand(1, 1 + index % 2, self.keypoints, 3, generator=rng) * 0.1
        points = points + torch.tensor([0.0, 0.0, 0.5])
        pixels = points @ K[0].T
        noise = torch.randn(1, 3, height, width, generator=rng)
        return VoteBatch(
            images=noise + label, cell_class=cell_class, cell_instance=cell_instance,
            instance_image=torch.zeros(1, dtype=torch.long), instance_class=torch.tensor([label]),
            points_cam=points, points_px=pixels[..., :2] / pixels[..., 2:], K_crop=K,
            diameter=torch.tensor([0.17]), size_px=torch.tensor([60.0]),
            posed=torch.tensor([True]),
            sample=torch.tensor([-1]))
