"""Everything that estimates poses: `object_pose`, and `wholebody_pose` once it is there.

    ros2 launch kd_pose pose.launch.py image:=/camera/color/image_raw \
        camera_info:=/camera/color/camera_info

The arguments of object_pose.launch.py are those of this file too; `ros2 launch kd_pose
pose.launch.py --show-args` lists them.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

BOOLEANS = ["true", "false"]


def generate_launch_description():
    object_pose = Path(get_package_share_directory("kd_pose")) / "launch/object_pose.launch.py"
    return LaunchDescription([
        DeclareLaunchArgument("objects", default_value="true", choices=BOOLEANS,
                              description="Start object_pose."),
        DeclareLaunchArgument("wholebody", default_value="false", choices=BOOLEANS,
                              description="Start wholebody_pose. Not there yet."),
        OpaqueFunction(function=check),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(object_pose)),
                                 condition=IfCondition(LaunchConfiguration("objects"))),
    ])


def check(context):
    """Refuse what this version does not have; RuntimeError with the reason."""
    if LaunchConfiguration("wholebody").perform(context) == "true":
        raise RuntimeError("wholebody:=true: the node wholebody_pose is not there yet in this "
                           "version of kd_pose; leave wholebody at false")
    if LaunchConfiguration("objects").perform(context) == "false":
        raise RuntimeError("objects:=false: then there is nothing to start; wholebody_pose is not "
                           "there yet")
