#!/usr/bin/env bash
# The demonstration of both nodes, each with a clip: object_pose with the project's own objects
# (rendered once), wholebody_pose with people (tools/demo/people.mp4). Player, node and monitor are
# three processes that talk over DDS; every frame's result is printed, against the truth.
# summary.json, annotated.mp4 and sheet.jpg are left in demo_output/objects and demo_output/people.
#
#   tools/demo.sh [--only objects|people] [--rate HZ] [--loop]      --loop: one of them, until Ctrl-C
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rate=10.0
loop=false
shows=(objects people)
while [ $# -gt 0 ]; do
  case "$1" in
    --rate) rate="${2:?--rate needs a number}"; shift 2 ;;
    --loop) loop=true; shift ;;
    --only)
      case "${2:-}" in
        objects|people) shows=("$2"); shift 2 ;;
        *) echo "demo: --only is '${2:-}'; allowed: objects, people" >&2; exit 2 ;;
      esac ;;
    -h|--help) sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "demo: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
if [ "$loop" = true ] && [ ${#shows[@]} -gt 1 ]; then
  echo "demo: --loop needs --only objects or --only people" >&2
  exit 2
fi

[[ $rate == *.* ]] || rate=$rate.0  # ROS 2 takes no whole number for a real one

source tools/env.sh
out=demo_output
bin=ros2_ws/install/kd_pose/lib/kd_pose
# A domain of its own, so that a demo on a busy lab network meets nobody else's topics.
export ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-$((RANDOM % 90 + 10))}"
pids=()

cleanup() {
  for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  pids=()
}
trap cleanup EXIT

needs() {
  for file in "$@"; do
    [ -s "$file" ] || { echo "demo: $file is missing; is the clone complete?" >&2; exit 1; }
  done
}

node_options=()  # further parameters of the node

# show WHAT NODE MODEL DETECTOR SOURCE [parameters of the player]
show() {
  local what=$1 name=$2 model=$3 detector=$4 source=$5 node monitor
  shift 5
  needs "$model" "$detector"
  mkdir -p "$out/$what"
  rm -f "$out/$what/summary.json"
  echo "== $name: playing $source at $rate Hz (ROS_DOMAIN_ID=$ROS_DOMAIN_ID)"
  "$bin/$name" --ros-args --params-file "config/$name.yaml" -p exit_on_failure:=true \
    -p "model_path:=$PWD/$model" -p "detector_path:=$PWD/$detector" "${node_options[@]}" \
    --log-level warn >"$out/$what/$name.log" 2>&1 &
  node=$!
  pids+=("$node")
  "$bin/monitor" --ros-args -p "watch:=$what" -p "output_dir:=$out/$what" \
    -p idle_timeout_s:=3.0 -p "video_rate_hz:=$rate" &
  monitor=$!
  pids+=("$monitor")
  "$bin/player" --ros-args -p "source:=$source" -p "rate_hz:=$rate" -p "loop:=$loop" \
    -p wait_for_subscribers:=true "$@" --log-level error &
  pids+=($!)
  # The monitor ends by itself when results stop; a node that dies ends the demo with its log.
  while kill -0 "$monitor" 2>/dev/null; do
    if ! kill -0 "$node" 2>/dev/null; then
      echo "demo: the $name node stopped; its log:" >&2
      cat "$out/$what/$name.log" >&2
      exit 1
    fi
    sleep 0.5
  done
  cleanup
  [ -s "$out/$what/summary.json" ] || {
    echo "demo: no result arrived; see $out/$what/$name.log" >&2; exit 1; }
  echo
}

show_objects() {
  if [ ! -f "$out/clip/sheet.jpg" ]; then
    echo "== rendering the clip of objects (once, about a quarter of a minute)"
    rm -rf "$out/clip" "$out/meshes"
    mkdir -p "$out"
    kd-pose-train make-objects -o "$out/meshes"
    kd-pose-train synth-objects config/training/synth_clip.yaml \
      --meshes "$out/meshes" -o "$out/clip"
  fi
  # Poses that are right are nearly always surer than that: models/README.md.
  node_options=(-p object_score_threshold:=0.2)
  show objects object_pose models/objects_student.onnx models/objects_detector.onnx \
    "$out/clip/clip/000001" -p publish_truth:=true
}

show_people() {
  local model=models/wholebody_student.onnx detector=models/person_detector.onnx
  if [ ${#shows[@]} -gt 1 ] && ! [ -s "$model" -a -s "$detector" ]; then
    echo "== wholebody_pose: left out, $model and $detector are not there yet"
    shows=(objects)
    return
  fi
  node_options=()
  show people wholebody_pose "$model" "$detector" tools/demo/people.mp4 \
    -p horizontal_fov_deg:=56.6 -p "people_file:=$PWD/tools/demo/people.json.gz"
}

for what in "${shows[@]}"; do
  "show_$what"
done
for what in "${shows[@]}"; do
  echo "Look at $out/$what/sheet.jpg and annotated.mp4; the figures are in $out/$what/summary.json."
done
