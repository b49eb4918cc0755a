#!/usr/bin/env bash
# The demonstration: renders a clip of the project's own objects (once), then runs player,
# object_pose and monitor as three processes that talk over DDS, prints every frame's poses against
# the truth, and leaves summary.json, annotated.mp4 and sheet.jpg in demo_output/.
#
#   tools/demo.sh [--rate HZ] [--loop] [--keep-running]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rate=10.0
loop=false
while [ $# -gt 0 ]; do
  case "$1" in
    --rate) rate="$2"; shift 2 ;;
    --loop) loop=true; shift ;;
    -h|--help) sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "demo: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

source tools/env.sh
out=demo_output
model=models/objects_student.onnx
detector=models/objects_detector.onnx
for file in "$model" "$detector"; do
  [ -s "$file" ] || { echo "demo: $file is missing; is the clone complete?" >&2; exit 1; }
done

if [ ! -f "$out/clip/sheet.jpg" ]; then
  echo "== rendering the clip (once, about a quarter of a minute)"
  rm -rf "$out/clip" "$out/meshes"
  mkdir -p "$out"
  kd-pose-train make-objects -o "$out/meshes"
  kd-pose-train synth-objects config/training/synth_clip.yaml \
    --meshes "$out/meshes" -o "$out/clip"
fi

bin=ros2_ws/install/kd_pose/lib/kd_pose
# A domain of its own, so that a demo on a busy lab network meets nobody else's topics.
export ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-$((RANDOM % 90 + 10))}"
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap cleanup EXIT

echo "== starting object_pose and monitor (ROS_DOMAIN_ID=$ROS_DOMAIN_ID)"
"$bin/object_pose" --ros-args --params-file config/object_pose.yaml -p exit_on_failure:=true \
  -p "model_path:=$PWD/$model" -p "detector_path:=$PWD/$detector" \
  --log-level warn >"$out/object_pose.log" 2>&1 &
node=$!
pids+=("$node")
"$bin/monitor" --ros-args -p "output_dir:=$out" -p idle_timeout_s:=4.0 -p "video_rate_hz:=$rate" &
monitor=$!
pids+=("$monitor")

echo "== playing the clip at $rate Hz"
"$bin/player" --ros-args -p "source:=$out/clip/clip/000001" -p "rate_hz:=$rate" \
  -p "loop:=$loop" -p publish_truth:=true -p wait_for_subscribers:=true --log-level warn &
pids+=($!)

# The monitor ends by itself when results stop; a node that dies ends the demo with its log.
while kill -0 "$monitor" 2>/dev/null; do
  if ! kill -0 "$node" 2>/dev/null; then
    echo "demo: the object_pose node stopped; its log:" >&2
    cat "$out/object_pose.log" >&2
    exit 1
  fi
  sleep 0.5
done
[ -s "$out/summary.json" ] || { echo "demo: no result arrived; see $out/object_pose.log" >&2; exit 1; }
echo
echo "Look at $out/sheet.jpg and $out/annotated.mp4; the figures are in $out/summary.json."
