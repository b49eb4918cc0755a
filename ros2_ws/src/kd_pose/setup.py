"""The ROS 2 package: library, nodes, and everything that belongs into share/kd_pose.

colcon calls this; `pip install .` in the root of the repository installs library and trainer
without ROS.
"""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "kd_pose"
# Folder -> pattern of the files in it that are installed. Models may be absent (a checkout without
# them is still a working package); an empty folder of the others is a broken checkout.
SHARED = {"config": "*.*", "launch": "*.launch.py", "rviz": "*.rviz"}
OPTIONAL = {"models": "*.*"}


def shared_files() -> list:
    """data_files entries; RuntimeError that names a folder in which nothing was found."""
    entries = []
    for folder, pattern in {**SHARED, **OPTIONAL}.items():
        files = sorted(name for name in glob(f"{folder}/{pattern}") if Path(name).is_file())
        if not files and folder in SHARED:
            raise RuntimeError(f"{Path(folder).absolute()} has no {pattern}: incomplete checkout?")
        if files:
            entries.append((f"share/{NAME}/{folder}", files))
    return entries


setup(
    name=NAME,
    version="0.1.0",
    description="6D poses of objects and whole-body poses of people from camera images",
    license="Apache-2.0",
    maintainer="kd_pose maintainers",
    maintainer_email="maintainers@kd-pose.example.org",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared_files(),
    ],
    install_requires=["setuptools", "numpy"],
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "object_pose = kd_pose.nodes.start:object_pose",
            "wholebody_pose = kd_pose.nodes.start:wholebody_pose",
            "player = kd_pose.nodes.start:player",
            "monitor = kd_pose.nodes.start:monitor",
        ],
    },
)
