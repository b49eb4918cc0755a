"""``kd-pose-train evaluate-clip``: does a whole-body network follow people through a recording?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose.people_stream import PeopleStream
    from kd_pose.recording import Recording
    from kd_pose.sources import Source
    from kd_pose_training.evaluation.people_clip import ClipScore

_EPILOG = """\
examples:
  kd-pose-train evaluate-clip models/wholebody_student.onnx \\
      --detector models/person_detector.onnx --out runs/clip \\
      tools/demo/people.mp4:tools/demo/people.json.gz
  kd-pose-train synth-people config/training/people_clip.yaml -o data/clip --set seed=5
  kd-pose-train evaluate-clip student.onnx --detector person.onnx --out runs/clip \\
      data/clip/clip.mp4:data/clip/annotations/coco_wholebody_clip_v1.0.json

Every picture goes through what the node runs (detector now and then, tracks in between), in order
and without leaving any out. Of each recording:
  tracked   people of the truth who are TRACKED where they are: object keypoint similarity of the
            17 body points of at least 0.5, by the area of the true box
  false     TRACKED where nobody is, a picture
  changes   how often a person had another id than before (needs the key track_id)
  off       median distance of the body points of those who are found, in parts of their size
People without a labelled body point count neither as missed nor as false. Ids are the node's: who
is TRACKED from the third sighting on.
OUT holds report.json, and annotated.mp4 and sheet.jpg of each recording in a folder of its name.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``evaluate-clip``."""
    parser = subparsers.add_parser(
        "evaluate-clip", help="score the tracking of people in recordings with annotations",
        epilog=_EPILOG, description="Run a whole-body network and a person detector over "
        "recordings as the node does, and compare who is tracked with who is there.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("clips", nargs="+", metavar="RECORDING:ANNOTATIONS",
                        help="a video or a folder of pictures, and its people in COCO's format "
                        "(.json or .json.gz)")
    parser.add_argument("--detector", type=Path, required=True, metavar="DETECTOR.onnx")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rate-hz", type=float, metavar="HZ",
                        help="pictures a second (default: as recorded; folders have none)")
    parser.add_argument("--detector-every-n", type=int, default=None, metavar="N",
                        help="as the parameter of the node (default 10)")
    parser.add_argument("--detector-still-n", type=int, default=None, metavar="N",
                        help="as the parameter of the node (default 30)")
    parser.add_argument("--smooth", action="store_true", help="smooth keypoints (One Euro filter)")
    parser.add_argument("--no-appearance", action="store_true",
                        help="clothes have no say in who is who")
    parser.add_argument("--no-pictures", action="store_true", help="write report.json only")
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime or openvino")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:<n>")
    parser.add_argument("--threads", type=int, default=0)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose.recording import Recording
    from kd_pose_training.evaluation.report import prepare_output, write_json
    rate = options.rate_hz
    if rate is not None and not 0.1 <= rate <= 1000.0:
        raise ValueError(f"--rate-hz must be 0.1 to 1000, got {rate:g}")
    sources = {name: _open(text) for name, text in _named(options.clips).items()}
    prepare_output(options.out / "report.json")
    recordings = {} if options.no_pictures else {
        name: Recording(options.out / name, rate or source.rate_hz or 10.0)
        for name, source in sources.items()}
    stream = _stream(options)
    report: dict[str, Any] = {"model": str(options.model), "detector": str(options.detector),
                              "clips": {}}
    try:
        for name, source in sources.items():
            recording = recordings.pop(name, None)
            try:
                score = _score(stream, source, rate or 0.0, recording).summary()
            except BaseException:
                if recording is not None:
                    recording.discard()
                raise
            print(_line(name, score), flush=True)
            for line in recording.close(score) if recording else ():
                print(f"  {line}", flush=True)
            report["clips"][name] = {"recording": str(source.path), **score}
            write_json(report, options.out / "report.json")
    finally:
        stream.estimator.close()
    print(f"{options.out}: report.json")
    return 0


def _named(clips: list[str]) -> dict[str, str]:
    """Recordings by a name that is also a folder's: theirs, with a number where it is not new."""
    named: dict[str, str] = {}
    for text in clips:
        recording = Path(text.rpartition(":")[0]).resolve()
        stem = "_".join(part for part in (recording.parent.name, recording.stem) if part) or "clip"
        name, number = stem, 1
        while name in named:
            number += 1
            name = f"{stem}_{number}"
        named[name] = text
    return named


def _open(text: str) -> Source:
    from kd_pose.sources import open_source
    from kd_pose.sources.bag import is_bag
    recording, _, annotations = text.rpartition(":")
    if not (recording and annotations):
        raise ValueError(f"{text!r}: must be RECORDING:ANNOTATIONS, e.g. clip.mp4:people.json")
    if not Path(annotations).expanduser().is_file():
        raise ValueError(f"{text!r}: there is no file of annotations {annotations}")
    path = Path(recording).expanduser()
    if path.exists() and is_bag(path):
        raise ValueError(f"{recording}: is a rosbag2, must be a video or a folder of pictures; "
                         "the player (people_file) and the monitor score bags")
    # Nothing here depends on the camera, but a recording without a calibration is refused.
    return open_source(path, people_file=annotations, horizontal_fov_deg=60.0)


def _stream(options: argparse.Namespace) -> PeopleStream:
    from kd_pose.people_stream import PeopleStream, StreamOptions
    from kd_pose.smoothing import SmoothingOptions
    from kd_pose.tracking import TrackingOptions
    from kd_pose.wholebody_pose import WholebodyPoseEstimator
    given = {name: getattr(options, name) for name in ("detector_every_n", "detector_still_n")
             if getattr(options, name) is not None}
    settings = StreamOptions(TrackingOptions(appearance=not options.no_appearance),
                             SmoothingOptions() if options.smooth else None, **given)
    estimator = WholebodyPoseEstimator(options.model, options.detector, backend=options.backend,
                                       device=options.device, threads=options.threads)
    return PeopleStream(estimator, settings)


def _score(stream: PeopleStream, source: Source, rate_hz: float, recording: Recording | None
           ) -> ClipScore:
    import cv2
    from tqdm import tqdm

    from kd_pose_training.evaluation.people_clip import score_clip

    def shown(picture: Any) -> None:
        recording.add(cv2.imencode(".jpg", picture)[1].tobytes())

    with tqdm(total=source.count, desc="tracking", unit=" pictures", leave=False,
              disable=None) as bar:
        return score_clip(stream, source, rate_hz=rate_hz, shown=shown if recording else None,
                          done=lambda count: bar.update())


def _line(name: str, score: dict[str, Any]) -> str:
    def value(key: str, form: str, scale: float = 1.0) -> str:
        return "-" if score[key] is None else form.format(scale * score[key])

    return (f"{name}: {score['frames']} pictures, tracked {value('recall', '{:.1f} %', 100)}"
            f", false {value('false_per_frame', '{:.2f}')}"
            f", changes {value('id_changes', '{:.0f}')}"
            f", off {value('median_error_of_size', '{:.1f} %', 100)}, {score['ids']} ids, "
            f"detector in {score['detector_runs']}, {value('ms_median', '{:.0f}')} ms a picture")
