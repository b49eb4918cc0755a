"""Pictures for people: poses and boxes drawn over an image.

Notable: edges and faces are cut at the camera plane and follow the lens distortion, so the drawing
lies on the object in the delivered image. Colours are those of Okabe and Ito (2008), which people
with any colour vision tell apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from kd_pose.camera import Camera
from kd_pose.geometry import box_corners, transform_points
from kd_pose.keypoints import BOX_EDGES
from kd_pose.results import Detection2D, ObjectPose, ObjectPoseFrame, TrackState

# RGB. Black, the eighth of the set, does not show on dark images.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
)
AXIS_COLOURS = ((235, 60, 50), (70, 200, 70), (60, 110, 245))  # RGB for x, y, z
INK = (20, 20, 20)
PAPER = (255, 255, 255)
# Corner indices of the six faces of a box, in order around the face.
BOX_FACES = np.array(
    [[0, 2, 6, 4], [1, 3, 7, 5], [0, 1, 5, 4], [2, 3, 7, 6], [0, 1, 3, 2], [4, 5, 7, 6]]
)
FACE_OPACITY = (0.12, 0.45)  # seen edge-on, seen squarely
HIDDEN_DARKENING = 0.55
AXIS_LENGTH = 0.35  # of the object's diameter
SUBPIXEL_BITS = 4
FARTHEST_PX = 20000.0  # beyond, OpenCV's fixed-point coordinates run out


def class_colour(name: str, class_names: Sequence[str] = ()) -> tuple[int, int, int]:
    """RGB of a class: by its place in `class_names`, else by its name (two may then agree)."""
    if name in class_names:
        return PALETTE[list(class_names).index(name) % len(PALETTE)]
    return PALETTE[zlib.crc32(name.encode()) % len(PALETTE)]


def draw_objects(
    image: np.ndarray,
    frame: ObjectPoseFrame,
    camera: Camera,
    channel_order: str = "bgr",
    class_names: Sequence[str] = (),
) -> np.ndarray:
    """A copy of `image` uint8 (H, W, 3) with every object's box, axes and label.

    Far objects first, labels on top of all. class_names: gives every class its own colour.
    """
    brush = _Brush(image, channel_order)
    objects = sorted(frame.objects, key=lambda item: -item.T_cam_obj[2, 3])
    for item in objects:
        _draw_box(brush, item, camera, class_colour(item.class_id, class_names))
        _draw_axes(brush, item, camera)
    for item in objects:
        text = f"{item.class_id} {100 * item.score:.0f}%"
        if item.id:
            text = f"{text} #{item.id}"
        points = item.keypoints_xy[np.isfinite(item.keypoints_xy).all(axis=1)]
        if len(points):
            anchor = (float(points[:, 0].min()), float(points[:, 1].min()))
            brush.label(text, anchor, class_colour(item.class_id, class_names))
    return brush.canvas


def draw_detections(
    image: np.ndarray,
    detections: Sequence[Detection2D],
    channel_order: str = "bgr",
    class_names: Sequence[str] = (),
) -> np.ndarray:
    """A copy of `image` uint8 (H, W, 3) with the corners of every box and its label."""
    brush = _Brush(image, channel_order)
    for item in detections:
        x, y, w, h = (float(value) for value in item.box_xywh)
        colour = class_colour(item.class_id, class_names)
        arm = 0.22 * min(w, h)
        for cx, cy, dx, dy in (
            (x, y, arm, arm),
            (x + w, y, -arm, arm),
            (x, y + h, arm, -arm),
            (x + w, y + h, -arm, -arm),
        ):
            path = np.array([[cx + dx, cy], [cx, cy], [cx, cy + dy]])
            brush.line(path, colour, 2.0)
        brush.label(f"{item.class_id} {100 * item.score:.0f}%", (x, y), colour)
    return brush.canvas


def _draw_box(brush: _Brush, item: ObjectPose, camera: Camera, colour) -> None:
    spec = item.spec
    corners = transform_points(item.T_cam_obj, box_corners(spec.box_min, spec.box_max))
    near = 0.02 * spec.diameter
    centre = corners.mean(axis=0)
    front_edges: set[tuple[int, int]] = set()
    coasting = item.track_state in (TrackState.COASTING, TrackState.LOST)
    for face in BOX_FACES:
        facing = _facing(corners[face], centre)
        if facing <= 0:
            continue
        front_edges |= {tuple(sorted((face[i], face[i - 1]))) for i in range(4)}
        low, high = FACE_OPACITY
        opacity = (low + (high - low) * facing) * (0.4 if coasting else 1.0)
        outline = _clip_polygon(corners[face], near)
        if len(outline) >= 3:
            closed = np.vstack([outline, outline[:1]])
            brush.fill(_project_path(closed, camera, near), _mix(colour, PAPER, 0.15 * facing),
                       opacity)
    edges = [tuple(sorted((int(a), int(b)))) for a, b in BOX_EDGES]
    for hidden in (True, False):  # the front is drawn over the back
        for a, b in edges:
            if ((a, b) in front_edges) == hidden:
                continue
            path = _project_path(corners[[a, b]], camera, near)
            if hidden:
                brush.line(path, _mix(colour, INK, HIDDEN_DARKENING), 1.0)
            else:
                brush.line(path, colour, 1.2 if coasting else 2.0, outlined=not coasting)


def _draw_axes(brush: _Brush, item: ObjectPose, camera: Camera) -> None:
    length = AXIS_LENGTH * item.spec.diameter
    ends = transform_points(item.T_cam_obj, np.vstack([np.zeros(3), length * np.eye(3)]))
    near = 0.02 * item.spec.diameter
    for axis in np.argsort(-ends[1:, 2]):  # the axis that points away is drawn first
        path = _project_path(ends[[0, axis + 1]], camera, near)
        brush.line(path, AXIS_COLOURS[axis], 2.6, outlined=True)
    origin = _project_path(ends[:1], camera, near)
    if len(origin):
        brush.dot(origin[0], PAPER, 2.4)


def _facing(face: np.ndarray, centre: np.ndarray) -> float:
    """How squarely a face (4, 3) is seen: cosine to the line of sight, negative from behind."""
    normal = np.cross(face[1] - face[0], face[3] - face[0])
    middle = face.mean(axis=0)
    if normal @ (middle - centre) < 0:
        normal = -normal
    lengths = np.linalg.norm(normal) * np.linalg.norm(middle)
    return float(-(normal @ middle) / lengths) if lengths > 0 else 0.0


def _clip_polygon(points: np.ndarray, near: float) -> np.ndarray:
    """The part of a polygon (n, 3) with z >= near (Sutherland and Hodgman 1974)."""
    clipped = []
    for start, end in zip(points, np.roll(points, -1, axis=0)):
        if start[2] >= near:
            clipped.append(start)
        if (start[2] >= near) != (end[2] >= near):
            share = (near - start[2]) / (end[2] - start[2])
            clipped.append(start + share * (end - start))
    return np.array(clipped).reshape(-1, 3)


def _project_path(points: np.ndarray, camera: Camera, near: float) -> np.ndarray:
    """A polyline (n, 3) of the camera frame -> pixels (m, 2), bent as the lens bends it.

    Empty where it lies behind the camera.
    """
    if len(points) == 2 and (points[:, 2] < near).any():
        a, b = points
        if a[2] < near and b[2] < near:
            return np.empty((0, 2))
        share = (near - a[2]) / (b[2] - a[2])
        cut = a + share * (b - a)
        points = np.array([cut, b] if a[2] < near else [a, cut])
    if camera.has_distortion and len(points) > 1:
        steps = np.linspace(0.0, 1.0, 12)[:, None]
        points = np.concatenate([a + steps * (b - a) for a, b in zip(points, points[1:])])
    pixels = camera.project(points)
    return pixels[np.isfinite(pixels).all(axis=1)]


def _mix(colour, other, share: float) -> tuple[int, int, int]:
    return tuple(int(round(a + (b - a) * share)) for a, b in zip(colour, other))


class _Brush:
    """Draws RGB colours on a copy of an image of either channel order, sizes fit to the image."""

    def __init__(self, image: np.ndarray, channel_order: str) -> None:
        if channel_order not in ("bgr", "rgb"):
            raise ValueError(f"channel_order must be bgr or rgb, got {channel_order!r}")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        self.canvas = np.ascontiguousarray(image).copy()
        self._reverse = channel_order == "bgr"
        self._unit = max(0.75, min(image.shape[:2]) / 480.0)
        self._plates: list[tuple[int, int, int, int]] = []

    def _colour(self, rgb) -> tuple[int, ...]:
        return tuple(int(v) for v in (rgb[::-1] if self._reverse else rgb))

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        limited = np.clip(points, -FARTHEST_PX, FARTHEST_PX)
        return np.rint(limited * (1 << SUBPIXEL_BITS)).astype(np.int32).reshape(-1, 1, 2)

    def line(self, path: np.ndarray, rgb, width: float, outlined: bool = False) -> None:
        """Anti-aliased polyline (n, 2); outlined: with a dark rim that lifts it off the image."""
        if len(path) < 2:
            return
        thickness = max(1, int(round(width * self._unit)))
        fixed = [self._fixed(path)]
        if outlined:
            rim = thickness + max(2, int(round(1.2 * self._unit)))
            cv2.polylines(self.canvas, fixed, False, self._colour(INK), rim, cv2.LINE_AA,
                          SUBPIXEL_BITS)
        cv2.polylines(self.canvas, fixed, False, self._colour(rgb), thickness, cv2.LINE_AA,
                      SUBPIXEL_BITS)

    def dot(self, point: np.ndarray, rgb, radius: float) -> None:
        x, y = self._fixed(point).reshape(2)
        size = int(round(radius * self._unit * (1 << SUBPIXEL_BITS)))
        cv2.circle(self.canvas, (int(x), int(y)), size, self._colour(rgb), -1, cv2.LINE_AA,
                   SUBPIXEL_BITS)

    def fill(self, outline: np.ndarray, rgb, opacity: float) -> None:
        """Translucent polygon (n, 2); only the pixels around it are touched."""
        if len(outline) < 3:
            return
        height, width = self.canvas.shape[:2]
        low = np.clip(np.floor(outline.min(axis=0)) - 1, 0, (width, height)).astype(int)
        high = np.clip(np.ceil(outline.max(axis=0)) + 2, 0, (width, height)).astype(int)
        if (high <= low).any():
            return
        region = self.canvas[low[1]:high[1], low[0]:high[0]]
        layer = region.copy()
        cv2.fillPoly(layer, [self._fixed(outline - low)], self._colour(rgb), cv2.LINE_AA,
                     SUBPIXEL_BITS)
        region[:] = cv2.addWeighted(layer, opacity, region, 1.0 - opacity, 0.0)

    def label(self, text: str, anchor: tuple[float, float], rgb) -> None:
        """Plate above `anchor` (x, y), moved so that it stays in the image and covers no other."""
        scale = 0.5 * self._unit
        weight = max(1, int(round(self._unit)))
        pad = int(round(5 * self._unit))
        (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)
        rise = h
        w, h = w + 2 * pad, h + base + pad
        x, y = self._free_place(int(anchor[0]), int(anchor[1]) - h - pad, w, h)
        plate = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], dtype=np.float64)
        self.fill(plate, INK, 0.72)
        stripe = np.array([[x, y], [x + pad // 2 + 1, y], [x + pad // 2 + 1, y + h], [x, y + h]])
        self.fill(stripe.astype(np.float64), rgb, 1.0)
        origin = (x + pad + pad // 3, y + (h + rise) // 2)
        cv2.putText(self.canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale,
                    self._colour(PAPER), weight, cv2.LINE_AA)

    def _free_place(self, x: int, y: int, w: int, h: int) -> tuple[int, int]:
        height, width = self.canvas.shape[:2]
        x = max(0, min(x, width - w))
        y = max(0, min(y, height - h))
        for _ in range(len(self._plates) + 1):
            hit = next(
                (p for p in self._plates
                 if x < p[0] + p[2] and p[0] < x + w and y < p[1] + p[3] and p[1] < y + h),
                None,
            )
            if hit is None:
                break
            y = hit[1] + hit[3] + 2  # below the plate that is in the way
            if y + h > height:
                y = max(0, hit[1] - h - 2)
        self._plates.append((x, y, w, h))
        return x, y
