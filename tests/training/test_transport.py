"""Transport: plans known by hand, equality with GeomLoss, invariants, gradients, bad numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from kd_pose_training.losses.transport import TransportSettings, set_diameter, transport_cost

torch.set_num_threads(1)
RELEASED = TransportSettings(blur=0.001, reach=0.5, exact=False)
SHARP = TransportSettings(blur=0.001)


def _sets(seed, n, m, problems=1, dims=2, dtype=torch.float64, balanced=False):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(problems, n, dims, generator=rng, dtype=torch.float64) * 0.2 + 0.3
    y = torch.rand(problems, m, dims, generator=rng, dtype=torch.float64) * 0.2 + 0.32
    a = torch.rand(problems, n, generator=rng, dtype=torch.float64) + 0.01
    b = torch.rand(problems, m, generator=rng, dtype=torch.float64) + 0.01
    if balanced:
        a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    return [tensor.to(dtype).requires_grad_() for tensor in (x, a, y, b)]


def _with_gradient(function, tensors):
    """[values, gradients by every tensor], detached."""
    value = function(*tensors)
    return [value.detach(), *torch.autograd.grad(value.sum(), tensors)]


def _relative(ours, theirs) -> float:
    return max(float((p.double() - q.double()).norm() / q.double().norm().clamp(min=1e-30))
               for p, q in zip(ours, theirs))


# ---- by hand ---------------------------------------------------------------------------------

def test_one_point_to_one_point_is_half_the_squared_distance():
    x = torch.tensor([[[0.0, 0.0]]]).double().requires_grad_()
    y, one = torch.tensor([[[3.0, 4.0]]]).double(), torch.ones(1, 1).double()
    for debias in (True, False):
        settings = dataclasses.replace(SHARP, debias=debias)
        value = transport_cost(x, one, y, one, settings)
        assert value.item() == pytest.approx(12.5, rel=1e-9)
        torch.testing.assert_close(torch.autograd.grad(value.sum(), x)[0], x - y)


def test_beyond_the_knee_the_pull_no_longer_grows():
    """k = 1, 5 apart: √26 - 1, pulled by 5 / √26; 500 apart hardly harder."""
    one, y = torch.ones(1, 1).double(), torch.zeros(1, 1, 2).double()
    settings = dataclasses.replace(SHARP, knee=1.0)
    pulls = []
    for scale in (1.0, 100.0):
        x = (scale * torch.tensor([[[3.0, 4.0]]]).double()).requires_grad_()
        value = transport_cost(x, one, y, one, settings)
        assert value.item() == pytest.approx(math.sqrt(25 * scale**2 + 1) - 1, rel=1e-9)
        pulls.append(torch.autograd.grad(value.sum(), x)[0])
    torch.testing.assert_close(pulls[0], torch.tensor([[[3.0, 4.0]]]).double() / math.sqrt(26))
    assert pulls[1].norm().item() == pytest.approx(1.0, rel=1e-4)


def test_a_far_knee_is_the_squared_distance():
    tensors = _sets(3, 6, 5, balanced=True)
    far = _with_gradient(lambda *sets: transport_cost(*sets, TransportSettings(knee=1e4)), tensors)
    assert _relative(far, _with_gradient(
        lambda *sets: transport_cost(*sets, TransportSettings()), tensors)) < 1e-6


def test_two_points_whose_plan_is_known():
    """Masses ¾, ¼ at 0 and 1 against ¼, ¾ at 0 and 1: half a unit of mass goes one far."""
    x = torch.tensor([[[0.0], [1.0]]]).double().requires_grad_()
    a, b = torch.tensor([[0.75, 0.25]]).double(), torch.tensor([[0.25, 0.75]]).double()
    settings = TransportSettings(blur=0.05, final_steps=300)
    value = transport_cost(x, a, x.detach(), b, settings)
    assert value.item() == pytest.approx(0.5 * 0.5, rel=1e-2)
    # The mass at 0 is pulled towards 1 by the share that goes there; the mass at 1 stays.
    gradient = torch.autograd.grad(value.sum(), x)[0]
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-0.5, 0.0]).double(),
                               atol=1e-3, rtol=0)


def test_crossed_pairs_are_matched_by_distance_not_by_order():
    x = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]).double().requires_grad_()
    y = torch.tensor([[[1.1, 0.0], [0.0, 0.2]]]).double()
    half = torch.full((1, 2), 0.5).double()
    value = transport_cost(x, half, y, half, TransportSettings(blur=0.01, final_steps=20))
    assert value.item() == pytest.approx(0.5 * (0.5 * 0.04 + 0.5 * 0.01), rel=1e-6)
    gradient = torch.autograd.grad(value.sum(), x)[0][0]
    torch.testing.assert_close(gradient, torch.tensor([[0, -0.1], [-0.05, 0]]).double())


def test_a_mass_that_shrinks_in_place_costs_by_the_roots():
    """Equal place, masses p and q: rho (p + q) - 2 rho sqrt(pq) = rho (sqrt p - sqrt q)².

    By p: rho (1 - sqrt(q / p)). The iterations alone would leave next to nothing of it.
    """
    place, p, q = torch.zeros(1, 1, 2).double(), 0.9, 0.1
    mass = torch.tensor([[p]]).double().requires_grad_()
    value = transport_cost(place, mass, place, torch.tensor([[q]]).double(),
                           TransportSettings(blur=1e-3, reach=0.5))
    assert value.item() == pytest.approx(0.25 * (math.sqrt(p) - math.sqrt(q)) ** 2, rel=1e-4)
    value.sum().backward()
    assert mass.grad.item() == pytest.approx(0.25 * (1 - math.sqrt(q / p)), rel=1e-4)
    stopped = transport_cost(place, mass, place, torch.tensor([[q]]).double(), RELEASED)
    assert stopped.item() < 1e-3


def test_beyond_reach_all_mass_is_let_go():
    x, y = torch.zeros(1, 1, 1).double(), torch.full((1, 1, 1), 50.0).double()
    value = transport_cost(x, torch.tensor([[0.7]]).double(), y, torch.tensor([[0.2]]).double(),
                           TransportSettings(blur=1e-3, reach=0.5))
    assert value.item() == pytest.approx(0.25 * 0.9, rel=1e-4)


def test_equal_sets_cost_nothing_and_pull_nowhere():
    x, a, _, _ = _sets(0, 9, 9)
    for settings in (RELEASED, SHARP, TransportSettings(blur=0.05, reach=0.1)):
        parts = _with_gradient(
            lambda x, a, s=settings: transport_cost(x, a, x.detach(), a.detach(), s), [x, a])
        assert max(float(part.abs().max()) for part in parts) < 1e-9


# ---- GeomLoss --------------------------------------------------------------------------------

def _geomloss(settings):
    samples_loss = pytest.importorskip("geomloss").SamplesLoss(
        "sinkhorn", p=2, blur=settings.blur, scaling=settings.scaling, reach=settings.reach,
        debias=settings.debias, backend="tensorized")
    return lambda x, a, y, b: samples_loss(a, x, b, y)


@pytest.mark.parametrize("reach", [0.5, 0.05, None])
@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 2), (10, 10, 2), (1, 7, 3), (32, 5, 2), (10, 9, 16)])
def test_equals_geomloss_in_double(sizes, debias, reach):
    n, m, dims = sizes
    settings = dataclasses.replace(RELEASED, reach=reach, debias=debias)
    tensors = _sets(n + m, n, m, dims=dims, balanced=reach is None)
    ours = _with_gradient(lambda *t: transport_cost(*t, settings), tensors)
    assert _relative(ours, _with_gradient(_geomloss(settings), tensors)) < 1e-8


@pytest.mark.parametrize("seed", range(6))
def test_float32_equals_geomloss_in_double(seed):
    """GeomLoss's own float32 is several 1e-3 off its double here."""
    n, m = [(10, 10), (32, 32), (3, 20), (1, 5), (17, 2), (10, 9)][seed]
    tensors = _sets(seed, n, m)
    single = [t.detach().float().requires_grad_() for t in tensors]
    ours = _with_gradient(lambda *t: transport_cost(*t, RELEASED), single)
    double = [t.detach().double().requires_grad_() for t in single]
    assert _relative(ours, _with_gradient(_geomloss(RELEASED), double)) < 5e-4


def _ragged(seed=3, dtype=torch.float64):
    """Six problems of different sizes and spreads, padded with rubbish of mass 0."""
    rng = torch.Generator().manual_seed(seed)
    sizes = [(10, 10), (3, 8), (1, 1), (7, 2), (10, 4), (2, 9)]
    x, y = (torch.full((6, 10, 2), 1e4, dtype=dtype) for _ in range(2))
    a, b = (torch.zeros(6, 10, dtype=dtype) for _ in range(2))
    for row, (n, m) in enumerate(sizes):
        spread = 0.01 * 4.0 ** row
        x[row, :n] = torch.rand(n, 2, generator=rng, dtype=dtype) * spread
        y[row, :m] = torch.rand(m, 2, generator=rng, dtype=dtype) * spread + 0.1 * spread
        a[row, :n] = torch.rand(n, generator=rng, dtype=dtype) + 0.05
        b[row, :m] = torch.rand(m, generator=rng, dtype=dtype) + 0.05
    return sizes, [t.requires_grad_() for t in (x, a, y, b)]


def test_ragged_batch_equals_a_loop_of_geomloss():
    sizes, tensors = _ragged()
    ours = _with_gradient(lambda *t: transport_cost(*t, RELEASED), tensors)
    for row, (n, m) in enumerate(sizes):
        one = [t.detach()[row:row + 1, :length].requires_grad_()
               for t, length in zip(tensors, (n, n, m, m))]
        theirs = _with_gradient(_geomloss(RELEASED), one)
        mine = [ours[0][row:row + 1]] + [g[row:row + 1, :length] for g, length in
                                         zip(ours[1:], (n, n, m, m))]
        assert _relative(mine, theirs) < 1e-6
        for gradient, length in zip(ours[1:], (n, n, m, m)):
            assert (gradient[row, length:] == 0).all()


def test_common_diameter_is_taken_from_outside():
    """As released: eight corners start from one diameter over all of them."""
    x, a, y, b = _sets(8, 10, 10, problems=8)
    with torch.no_grad():
        x[3] += 0.4
    flat_x, flat_y = x.reshape(1, -1, 2), y.reshape(1, -1, 2)
    everything = torch.ones(1, 80, dtype=torch.bool)
    diameter = set_diameter(flat_x, everything, flat_y, everything).expand(8)
    ours = _with_gradient(lambda *t: transport_cost(*t, RELEASED, diameter=diameter),
                          [x, a, y, b])
    assert _relative(ours, _with_gradient(_geomloss(RELEASED), [x, a, y, b])) < 1e-8


# ---- gradients -------------------------------------------------------------------------------

@pytest.mark.parametrize("reach", [0.5, None])
@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("knee", [None, 0.05])
def test_gradient_is_that_of_the_value(reach, debias, knee):
    settings = TransportSettings(blur=0.2, reach=reach, final_steps=60, debias=debias, knee=knee)
    x, a, y, b = _sets(1, 4, 3, problems=2, balanced=reach is None)

    def value(x, a, y, b):
        if reach is None:
            a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
        return transport_cost(x, a, y, b, settings, diameter=torch.full((2,), 0.3).double())

    assert torch.autograd.gradcheck(value, (x, a, y, b), eps=1e-6, atol=1e-7)


def test_weights_scale_their_own_derivative_only():
    tensors = _sets(2, 5, 6)
    plain = _with_gradient(lambda *t: transport_cost(*t, RELEASED), tensors)
    weighted = _with_gradient(lambda *t: transport_cost(
        *t, RELEASED, position_weight=3.0, mass_weight=0.0), tensors)
    torch.testing.assert_close(weighted[0], plain[0])
    for index, factor in ((1, 3.0), (2, 0.0), (3, 3.0), (4, 0.0)):
        torch.testing.assert_close(weighted[index], factor * plain[index])


def test_gradients_are_computed_only_where_wanted():
    x, a, y, b = _sets(2, 5, 6)
    transport_cost(x, a.detach(), y.detach(), b.detach(), RELEASED).sum().backward()
    assert x.grad is not None and a.grad is y.grad is b.grad is None
    assert not transport_cost(x.detach(), a.detach(), y.detach(), b.detach(),
                              RELEASED).requires_grad


# ---- invariants ------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [RELEASED, TransportSettings(blur=0.02, reach=0.1)])
def test_order_padding_and_batch_do_not_matter(settings):
    _, (x, a, y, b) = _ragged()
    want = transport_cost(x, a, y, b, settings)
    torch.testing.assert_close(transport_cost(x.flip(1), a.flip(1), y, b, settings), want)
    torch.testing.assert_close(transport_cost(x.flip(0), a.flip(0), y.flip(0), b.flip(0),
                                              settings), want.flip(0))
    torch.testing.assert_close(transport_cost(y, b, x, a, settings), want)
    rubbish = torch.full((6, 5, 2), math.nan).double()
    wide = (torch.cat([x, rubbish], 1), torch.cat([a, torch.zeros(6, 5)], 1))
    torch.testing.assert_close(transport_cost(*wide, y, b, settings), want)
    alone = torch.cat([transport_cost(x[i:i + 1], a[i:i + 1], y[i:i + 1], b[i:i + 1], settings)
                       for i in range(6)])
    torch.testing.assert_close(alone, want)


def test_chunks_do_not_matter(monkeypatch):
    _, tensors = _ragged()
    want = _with_gradient(lambda *t: transport_cost(*t, RELEASED), tensors)
    monkeypatch.setitem(transport_cost.__globals__["CHUNK_NUMBERS"], "cpu", 900)
    torch.testing.assert_close(
        _with_gradient(lambda *t: transport_cost(*t, RELEASED), tensors), want)


def test_moving_both_sets_together_changes_nothing():
    x, a, y, b = _sets(5, 8, 6)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double()
    settings = TransportSettings(blur=0.01, reach=0.3)
    move = transport_cost(x @ turn + 7, a, y @ turn + 7, b, settings,
                          diameter=torch.tensor([0.3]))
    still = transport_cost(x, a, y, b, settings, diameter=torch.tensor([0.3]))
    torch.testing.assert_close(move, still)


def test_the_divergence_grows_with_the_shift_and_is_not_negative():
    x, a, _, _ = _sets(6, 10, 10, balanced=True)
    values = [transport_cost(x + shift, a, x, a, SHARP).item() for shift in (0, 1e-3, 0.01, 0.1)]
    assert values == sorted(values) and values[0] > -1e-9
    # A pure translation moves all mass by it: 2 coordinates, ½ shift² each.
    assert values[3] == pytest.approx(0.01, rel=1e-3)


# ---- bad and extreme numbers -----------------------------------------------------------------

EXTREMES = {
    "one point, same place": ([[0.3, 0.3]], [0.5], [[0.3, 0.3]], [0.5]),
    "tiny masses": ([[0.1, 0.2], [0.3, 0.1]], [1e-30, 1e-38], [[0.3, 0.3]], [1e-20]),
    "very different masses": ([[0.1, 0.2]], [1e-12], [[0.3, 0.3]], [1e6]),
    "far": ([[0.0, 0.0], [1.0, 0.0]], [1.0, 1.0], [[1e4, 0.0]], [1.0]),
    "very far": ([[0.0, 0.0], [1e30, 0.0]], [1.0, 1.0], [[-1e30, 1e30]], [1.0]),
    "at infinity": ([[0.0, math.inf]], [1.0], [[-math.inf, 0.0]], [1.0]),
    "all points equal": ([[0.5, 0.5]] * 4, [0.2] * 4, [[0.5, 0.5]] * 2, [0.4] * 2),
    "masses of both sides zero": ([[0.1, 0.1]], [0.0], [[0.2, 0.1]], [0.0]),
    "mass of one side zero": ([[0.1, 0.1]], [0.9], [[0.2, 0.1]], [0.0]),
    "negative mass": ([[0.1, 0.1], [0.2, 0.2]], [-0.5, 0.3], [[0.2, 0.1]], [0.5]),
}


@pytest.mark.parametrize("settings", [RELEASED, SHARP, TransportSettings(blur=0.1, reach=1e-3),
                                      TransportSettings(blur=1e-3, reach=0.5, knee=1e-3),
                                      TransportSettings(blur=1e-5, reach=0.5, debias=False)])
@pytest.mark.parametrize("name", EXTREMES)
def test_never_nan(name, settings):
    tensors = [torch.tensor(part, dtype=torch.float32)[None].requires_grad_()
               for part in EXTREMES[name]]
    for part in _with_gradient(lambda *t: transport_cost(*t, settings), tensors):
        assert part.isfinite().all()


def test_the_bound_of_the_divergence_leaves_its_gradient():
    """One point 1e-4 blurs from the other: S is nothing in float32, the pull is not."""
    x = torch.tensor([[[1000.0 + 1e-4, 0.0]]], dtype=torch.float64).requires_grad_()
    a = torch.ones(1, 1, dtype=torch.float64)
    y = torch.tensor([[[1000.0, 0.0]]], dtype=torch.float64)
    value = transport_cost(x, a, y, a, TransportSettings(blur=1.0))
    value.sum().backward()
    assert value.item() >= 0 and x.grad[0, 0, 0].item() == pytest.approx(1e-4, rel=1e-6)


def test_empty_pairs_are_zero_without_gradient_beside_others():
    _, (x, a, y, b) = _ragged(dtype=torch.float32)
    with torch.no_grad():
        a[1], b[3] = 0, 0
        x[1] = math.nan
    value, *gradients = _with_gradient(lambda *t: transport_cost(*t, RELEASED), [x, a, y, b])
    assert value[1] == value[3] == 0 and (value[[0, 2, 4, 5]] > 0).all()
    for gradient in gradients:
        assert gradient.isfinite().all() and (gradient[[1, 3]] == 0).all()


@pytest.mark.parametrize("n, m, problems", [(0, 3, 2), (3, 0, 2), (0, 0, 1), (4, 4, 0)])
def test_no_points_or_no_problems(n, m, problems):
    tensors = [torch.zeros(problems, n, 2), torch.zeros(problems, n), torch.zeros(problems, m, 2),
               torch.zeros(problems, m)]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    value = transport_cost(*tensors, RELEASED)
    value.sum().backward()
    assert value.shape == (problems,) and (value == 0).all()


def test_nan_in_is_nan_out():
    """A broken network must be seen by the trainer, not hidden."""
    x, a, y, b = _sets(0, 3, 3, problems=2)
    with torch.no_grad():
        x[1, 0] = math.nan
    value = transport_cost(x, a, y, b, RELEASED)
    assert value[0].isfinite() and value[1].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    half = [t.detach().to(dtype).requires_grad_() for t in _sets(4, 6, 5)]
    single = [t.detach().float().requires_grad_() for t in half]
    value, *gradients = _with_gradient(lambda *t: transport_cost(*t, RELEASED), half)
    want = _with_gradient(lambda *t: transport_cost(*t, RELEASED), single)
    assert value.dtype == torch.float32 and gradients[0].dtype == dtype
    torch.testing.assert_close(value, want[0])
    for mine, other in zip(gradients, want[1:]):
        torch.testing.assert_close(mine.float(), other, rtol=1e-2, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(transport_cost(*half, RELEASED), value)


@pytest.mark.parametrize("change, message", [
    ({"blur": 0.0}, "blur"), ({"blur": math.inf}, "blur"), ({"reach": -1.0}, "reach"),
    ({"scaling": 1.0}, "scaling"), ({"knee": 0.0}, "knee"), ({"final_steps": -1}, "final_steps")])
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        TransportSettings(**change)


@pytest.mark.parametrize("shapes", [((2, 3, 2), (2, 4), (2, 3, 2), (2, 3)),
                                    ((2, 3, 2), (2, 3), (1, 3, 2), (1, 3)),
                                    ((2, 3, 2), (2, 3), (2, 3, 3), (2, 3)),
                                    ((3, 2), (3,), (3, 2), (3,))])
def test_bad_shapes(shapes):
    with pytest.raises(ValueError, match="must"):
        transport_cost(*(torch.zeros(shape) for shape in shapes), SHARP)


def test_bad_diameter():
    with pytest.raises(ValueError, match="diameter"):
        transport_cost(*_sets(0, 2, 2), SHARP, diameter=torch.ones(3))
