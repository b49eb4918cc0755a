"""The one light model of both renderers, in words, numbers and GLSL.

Radiance = albedo * (sky/ground by the normal's z + sun * visible * max(0, n.l)
+ fill * max(0, n.f)) plus a white Blinn-Phong highlight of the sun. Colours are taken as sRGB and
squared to linear light by an exponent of 2.2, and back; normals face the camera, so that
open meshes are seen from within.
"""

from __future__ import annotations

import numpy as np

from kd_pose_training.synthetic.scene import Light

GAMMA = 2.2

GLSL = """
uniform vec3 to_sun, sun, sky, ground, to_fill, fill, gain;
uniform float shine, gloss;
vec3 shade(vec3 texel, vec3 normal, vec3 view, float lit) {
    vec3 n = normalize(normal);
    if (dot(n, view) < 0.0) n = -n;
    vec3 albedo = pow(clamp(texel * gain, 0.0, 1.0), vec3(2.2));
    vec3 light = mix(ground, sky, 0.5 + 0.5 * n.z) + sun * lit * max(dot(n, to_sun), 0.0)
               + fill * max(dot(n, to_fill), 0.0);
    vec3 h = normalize(to_sun + view);
    float spot = shine * pow(max(dot(n, h), 0.0), gloss) * lit * step(0.0, dot(n, to_sun));
    return pow(clamp(albedo * light + spot * sun, 0.0, 1.0), vec3(1.0 / 2.2));
}
"""


def shade(texel: np.ndarray, normal: np.ndarray, view: np.ndarray, lit: np.ndarray, light: Light,
          gain: np.ndarray, shine: np.ndarray, gloss: np.ndarray) -> np.ndarray:
    """The same in numpy: sRGB (n, 3) in 0..1.

    texel (n, 3), gain (n or 1, 3) 0..1; normal, view (n, 3) in the world, view unit and towards
    the camera; lit (n,) 0..1: how much of the sun is seen; shine, gloss (n or 1,). The result has
    the inputs' precision.
    """
    n = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    n = np.where((n * view).sum(axis=1, keepdims=True) < 0, -n, n)
    albedo = np.clip(texel * gain, 0, 1) ** GAMMA
    up = (0.5 + 0.5 * n[:, 2:])
    facing = n @ light.to_sun
    total = (light.ground + (light.sky - light.ground) * up
             + light.sun * (lit * np.maximum(facing, 0))[:, None]
             + light.fill * np.maximum(n @ light.to_fill, 0)[:, None])
    h = light.to_sun + view
    h = h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    spot = shine * np.maximum((n * h).sum(axis=1), 0) ** gloss * lit * (facing >= 0)
    return np.clip(albedo * total + spot[:, None] * light.sun, 0, 1) ** (1 / GAMMA)
