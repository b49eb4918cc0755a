"""`object_pose`, and on request a player beside it and RViz.

    ros2 launch kd_pose object_pose.launch.py image:=/camera/color/image_raw \
        camera_info:=/camera/color/camera_info

Model and detector are the shipped ones unless an argument or the parameter file names others.
`ros2 launch kd_pose object_pose.launch.py --show-args` lists the arguments.
"""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from kd_pose.nodes import launching

ARGUMENTS = (*launching.SHARED, *launching.OBJECTS.arguments())


def generate_launch_description():
    return LaunchDescription(
        [*launching.declarations(ARGUMENTS), OpaqueFunction(function=nodes)])


def nodes(context):
    """The actions for the arguments in `context`; RuntimeError that names the argument."""
    given = launching.values(context, ARGUMENTS, __file__)
    return launching.actions(given, [(launching.OBJECTS, "")])
