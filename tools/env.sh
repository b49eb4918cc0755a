# To be sourced by bash, from anywhere: virtual environment, ROS 2 and the built workspace.
#
#     source tools/env.sh
_kd_pose_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_kd_pose_venv="$_kd_pose_root/.venv"

_kd_pose_env() {
  local mode folder
  if [ ! -f "$_kd_pose_venv/kd_pose_mode" ] || [ ! -f "$_kd_pose_root/ros2_ws/install/local_setup.bash" ]; then
    echo "kd_pose: not set up yet; run:  make -C $_kd_pose_root setup" >&2
    return 1
  fi
  mode=$(cat "$_kd_pose_venv/kd_pose_mode")
  if [ "$mode" = wheels ]; then
    if [ -n "${ROS_DISTRO:-}" ]; then
      echo "kd_pose: set up with ROS 2 wheels, but this shell has ROS 2 $ROS_DISTRO sourced." >&2
      echo "  Use a shell without it, or set up anew with it:  make distclean setup" >&2
      return 1
    fi
  elif [ -z "${ROS_DISTRO:-}" ]; then
    folder="/opt/ros/${mode#distribution }"
    if [ ! -f "$folder/setup.bash" ]; then
      echo "kd_pose: set up with ROS 2 from '$mode'; source its setup.bash first" >&2
      return 1
    fi
    # shellcheck disable=SC1091
    source "$folder/setup.bash"
  fi
  # shellcheck disable=SC1091
  source "$_kd_pose_venv/bin/activate"
  if [ "$mode" = wheels ]; then
    # What a distribution's setup.bash does. The wheels' libraries are in the environment.
    export AMENT_PREFIX_PATH="$_kd_pose_venv" CMAKE_PREFIX_PATH="$_kd_pose_venv"
    local libraries="$_kd_pose_venv/lib"
    for folder in "$_kd_pose_venv"/lib/python3*/site-packages/ros_*.libs; do
      [ -d "$folder" ] && libraries="$libraries:$folder"
    done
    case ":${LD_LIBRARY_PATH:-}:" in
      *":$_kd_pose_venv/lib:"*) ;;
      *) export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
    esac
  fi
  # shellcheck disable=SC1091
  source "$_kd_pose_root/ros2_ws/install/local_setup.bash"
  # Images between processes need more shared memory than Fast DDS takes by itself.
  export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$_kd_pose_root/ros2_ws/src/kd_pose/config/fastdds.xml}"
}

# The scripts of ROS and colcon use variables that are not set.
case $- in *u*) _kd_pose_nounset=true ;; *) _kd_pose_nounset=false ;; esac
set +u
_kd_pose_env
_kd_pose_status=$?
[ "$_kd_pose_nounset" = true ] && set -u
unset -f _kd_pose_env
unset _kd_pose_root _kd_pose_venv _kd_pose_nounset
( exit "$_kd_pose_status" )
