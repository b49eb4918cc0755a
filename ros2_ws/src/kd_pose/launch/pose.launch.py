"""Everything that estimates poses: `object_pose` and `wholebody_pose` on the same images.

    ros2 launch kd_pose pose.launch.py image:=/camera/color/image_raw \
        camera_info:=/camera/color/camera_info

Arguments are those of object_pose.launch.py, and with the prefix `wholebody_` what
wholebody_pose.launch.py has of its own (wholebody_model and so on). `objects:=false` and
`wholebody:=false` leave one of them out. `ros2 launch kd_pose pose.launch.py --show-args` lists
everything.
"""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from kd_pose.nodes import launching

PREFIX = "wholebody_"
ARGUMENTS = (
    launching.Argument("objects", "true", launching.BOOLEANS, "Start object_pose."),
    launching.Argument("wholebody", "true", launching.BOOLEANS, "Start wholebody_pose."),
    *launching.SHARED,
    *launching.OBJECTS.arguments(),
    *launching.PEOPLE.arguments(PREFIX),
)


def generate_launch_description():
    return LaunchDescription(
        [*launching.declarations(ARGUMENTS), OpaqueFunction(function=nodes)])


def nodes(context):
    """The actions for the arguments in `context`; RuntimeError that names the argument."""
    given = launching.values(context, ARGUMENTS, __file__)
    chosen = [(launching.OBJECTS, "")] if given["objects"] == "true" else []
    if given["wholebody"] == "true":
        chosen.append((launching.PEOPLE, PREFIX))
    if not chosen:
        raise RuntimeError("objects:=false wholebody:=false: then there is nothing to start")
    return launching.actions(given, chosen)
