"""Rendered training sets: meshes, scenes, two renderers that agree, camera effects, BOP files."""
