"""What people wear: colours at places of the body, to tell people apart whom places do not.

A look is four distributions of colour, one each of the trunk, the upper arms, the thighs and the
shins, over a coarse grid in CIE L*a*b*, where equal distances look about equally different. Two
looks are compared by the Bhattacharyya coefficient (1: the same, 0: no colour in common), the mean
over the parts that are known of both. Colours are those of one camera and a few seconds: light and
white balance are not taken out, and faces play no part.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from kd_pose.wholebody_keypoints import PARTS

BODY = PARTS["body"]
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 5, 6, 11, 12
LIMBS = (((5, 7), (6, 8)), ((11, 13), (12, 14)), ((13, 15), (14, 16)))  # arms, thighs, shins
WORN = 1 + len(LIMBS)
LIGHTNESS_STEP, COLOUR_STEP = 32.0, 16.0  # of the grid, of 256
GRID = (9, 17, 17)
CELLS = int(np.prod(GRID))
STRIDES = np.array([GRID[1] * GRID[2], GRID[2], 1])
# A place so near to one of somebody else, in parts of the root of that one's box, may be either's.
UNCLEAR = 0.07
LEAST_PLACES = 6  # of a part, for its colours to be known
LEAST_SIZE = 32.0  # px, root of a box's area; in less the places are the same few pixels


def _places() -> tuple[np.ndarray, np.ndarray]:
    """(P, 17) weights of the body's joints that give each place, and the part (P,) it is on."""
    across, down = (grid.ravel() for grid in np.meshgrid(np.linspace(0.15, 0.85, 5),
                                                         np.linspace(0.1, 0.9, 6)))
    trunk = np.zeros((len(across), BODY.stop))
    for joint, share in ((LEFT_SHOULDER, (1 - across) * (1 - down)),
                         (RIGHT_SHOULDER, across * (1 - down)),
                         (LEFT_HIP, (1 - across) * down), (RIGHT_HIP, across * down)):
        trunk[:, joint] = share
    weights, parts = [trunk], [np.zeros(len(trunk), int)]
    for part, limbs in enumerate(LIMBS, 1):
        for start, end in limbs:
            along = np.linspace(0.1, 0.9, 8)
            rows = np.zeros((len(along), BODY.stop))
            rows[:, start], rows[:, end] = 1 - along, along
            weights.append(rows)
            parts.append(np.full(len(along), part))
    return np.concatenate(weights), np.concatenate(parts)


PLACES, PART_OF = _places()


def looks(image: np.ndarray, xy: np.ndarray, sure: np.ndarray, sizes: np.ndarray,
          channel_order: str = "bgr") -> np.ndarray:
    """Looks (N, 4, CELLS) of the people of an image; rows of zeros where a part is not known.

    image: uint8 (H, W, 3). xy: (N, 133, 2) px. sure: (N, 133), whether a keypoint counts. sizes:
    (N,) px, root of the area of each one's box. Places that may show another of the people do
    not count.
    """
    found = np.zeros((len(xy), WORN, CELLS), np.float32)
    if not len(xy):
        return found
    body = np.where(sure[:, BODY, None], xy[:, BODY], 0.0)
    places = PLACES @ body  # (N, P, 2)
    usable = ~((PLACES > 0) & ~sure[:, None, BODY]).any(axis=2)
    low, high = places >= -0.5, places < np.array(image.shape[1::-1]) - 0.5
    usable &= (low & high).all(axis=2)
    usable &= ~_unclear(places, usable, sizes)
    usable[np.asarray(sizes) < LEAST_SIZE] = False
    person, place = np.nonzero(usable)
    if not len(person):
        return found
    column, row = np.rint(places[person, place]).astype(int).T
    pixels = image[row, column][None]
    code = cv2.COLOR_BGR2LAB if channel_order == "bgr" else cv2.COLOR_RGB2LAB
    colours = cv2.cvtColor(pixels, code)[0].astype(np.float64)
    part = person * WORN + PART_OF[place]
    counts = np.bincount(part, minlength=len(xy) * WORN)
    found = _spread(colours, part, len(xy) * WORN)
    found /= np.maximum(counts, 1)[:, None]
    found[counts < LEAST_PLACES] = 0.0
    return found.reshape(len(xy), WORN, CELLS)


def _unclear(places: np.ndarray, usable: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N, P) whether a place is near a place of somebody else."""
    result = np.zeros(usable.shape, bool)
    reach = UNCLEAR * np.asarray(sizes, dtype=np.float64)
    low = np.where(usable[..., None], places, np.inf).min(axis=1)
    high = np.where(usable[..., None], places, -np.inf).max(axis=1)
    around = reach[:, None]  # of the second of a pair; who has no usable place is near nobody
    near = ((low[:, None] <= high + around) & (high[:, None] >= low - around)).all(axis=2)
    np.fill_diagonal(near, False)
    squares = np.where(usable, (places**2).sum(axis=2), np.inf)
    for i, j in np.argwhere(near):
        nearest = (squares[j] - 2.0 * places[i] @ places[j].T).min(axis=1)
        result[i] |= nearest + squares[i] < reach[j] ** 2
    return result


def _spread(colours: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(count, CELLS): every colour (n, 3) shared among the eight cells around it, added by row."""
    scaled = colours / (LIGHTNESS_STEP, COLOUR_STEP, COLOUR_STEP)
    cell = np.floor(scaled).astype(int)
    share = scaled - cell
    corners = np.array(list(np.ndindex(2, 2, 2)))[:, None]  # (8, 1, 3)
    weights = np.where(corners, share, 1.0 - share).prod(axis=2)
    at = rows * CELLS + (cell + corners) @ STRIDES
    added = np.bincount(at.ravel(), weights.ravel(), count * CELLS)
    return added.astype(np.float32).reshape(count, CELLS)


def likeness(a: Sequence[np.ndarray], b: Sequence[np.ndarray], least_parts: int = 1
             ) -> np.ndarray:
    """(N, M) how alike looks are, 0..1; NaN where fewer than `least_parts` are known of both.

    a: N looks (4, CELLS). b: M.
    """
    a, b = (np.asarray(items, dtype=np.float32).reshape(-1, WORN, CELLS) for items in (a, b))
    known_a, known_b = (items.any(axis=2).astype(float) for items in (a, b))
    count = known_a @ known_b.T
    # An unknown part is all zeros and adds nothing, nor do cells that nobody of `a` has: most.
    a, b = (items.reshape(-1, WORN * CELLS) for items in (a, b))
    used = np.flatnonzero(a.any(axis=0))
    # Not `@`: for so little a BLAS wakes threads that wait for busy cores.
    sums = np.einsum("nc,mc->nm", np.sqrt(a[:, used]), np.sqrt(b[:, used]))
    return np.divide(sums, count, where=count >= max(least_parts, 1),
                     out=np.full(count.shape, np.nan))


def blended(old: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    """A look (4, CELLS) that takes `share` of the new one where a part is known of both."""
    had, has = old.any(axis=1)[:, None], new.any(axis=1)[:, None]
    return np.where(has & had, (1.0 - share) * old + share * new, np.where(has, new, old))
