"""Which samples and batches the network of a task learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from kd_pose.manifest import ObjectSpec
from kd_pose_training.config import TrainConfig


class VoteSamples:
    """For the vote networks: crops or frames with labelled cells."""

    code_tables: tuple[str, ...] = ()

    def __init__(self, config: TrainConfig) -> None:
        from kd_pose_training.data.batch import collate
        self.config = config
        self.collate: Callable = collate

    def dataset(self, datasets: Sequence[Any], network: Any, train: bool) -> Dataset:
        """Samples of splits for a network.

        Raises:
            ValueError: people are for the task ``object_detector`` only.
        """
        from kd_pose_training.data.splits import holds_people
        grid = network.grid(self.config.data.input_size)
        if holds_people(datasets):
            if self.config.task != "object_detector":
                raise ValueError(f"data.train: {', '.join(self.config.data.train)} hold people; "
                                 f"task is {self.config.task!r}; allowed: 'object_detector'")
            from kd_pose_training.data.person_box_dataset import PersonBoxDataset
            return PersonBoxDataset(datasets, self.config, grid, train)
        from kd_pose_training.data.object_dataset import ObjectVoteDataset
        return ObjectVoteDataset(datasets, self.config, grid, train)


class CodeSamples:
    """For the dense networks: crops with masks and codes.

    ``code_tables``: of every class, as text: part of what the network learns, so every checkpoint
    carries them.

    Raises:
        ValueError: names the object whose mesh gives no codes.
    """

    def __init__(self, config: TrainConfig, specs: Sequence[ObjectSpec],
                 datasets: Sequence[Any]) -> None:
        from kd_pose_training.data.code_batch import collate
        from kd_pose_training.data.code_targets import build_surface_codes
        self.config = config
        self.collate: Callable = collate
        self.surfaces = build_surface_codes(datasets, specs, config.model.code_bits,
                                            config.codes.surface_samples)
        self.code_tables = tuple(surface.table_text for surface in self.surfaces)

    def dataset(self, datasets: Sequence[Any], network: Any, train: bool) -> Dataset:
        """Samples of BOP splits for a network."""
        from kd_pose_training.data.code_dataset import ObjectCodeDataset
        return ObjectCodeDataset(datasets, self.config, self.surfaces, train)


def make_samples(config: TrainConfig, specs: Sequence[ObjectSpec],
                 datasets: Sequence[Any]) -> VoteSamples | CodeSamples:
    """The samples of a configuration whose objects are filled in."""
    if config.task == "object_codes":
        return CodeSamples(config, specs, datasets)
    return VoteSamples(config)
