"""Batched entropic optimal transport between weighted point sets, and its Sinkhorn divergence.

For two sets with masses a, b, a cost of carrying x to y and eps = blur² the solver finds the plan
pi of

    OT(a, b) = min_pi <pi, cost> + eps KL(pi | a x b) + rho KL(pi 1 | a) + rho KL(pi' 1 | b)

with rho = reach², or with both marginals exact (``reach=None``, balanced). The divergence takes
off what the blur alone costs: S = OT(a, b) - ½OT(a, a) - ½OT(b, b) + eps/2 (mass a - mass b)²
(Feydy et al., AISTATS 2019; Séjourné et al., arXiv 1910.12958), so that S = 0 for equal sets.

The cost is ½|x - y|², or with a ``knee`` k the pseudo-Huber distance k (√(|x - y|² + k²) - k):
the same for near points, and k |x - y| for far ones, so that the pull on a point stops growing
with its distance, as in a robust regression.

What is notable:

* All problems of a batch run together, each with its own annealing from its own diameter: a
  problem that needs fewer steps stands still while the others finish. So neither the batch nor
  the padding changes a value.
* The problems lie along the last axis of every tensor, so that sets of ten points still fill
  vector registers, and the up to four transports of a divergence are one tensor.
* No graph through the iterations. At the optimum the derivative of OT is known in closed form
  (envelope theorem), and it is computed with the value, from one last half-step.
* Unbalanced, the level of the potentials is solved in closed form in every step.
* float32 is enough although eps may be a millionth: potentials are kept as a common level, which
  carries a mismatch of the masses and cancels in the plan, and small differences from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd_pose_training.losses.precision import set_diameter, widened

# Numbers a working matrix may have: measured best on CPU caches; also the bound of the memory
# that is needed beside inputs and results.
CHUNK_NUMBERS = {"cpu": 1 << 17, "other": 1 << 24}
# exp(-f / rho) is held below this exponent, which only potentials far from converged exceed.
MAX_EXPONENT = 80.0
# Terms of a soft minimum below exp of this are nothing beside its largest, which is 1; without
# the bound they become denormal numbers, for which exp is a hundred times slower on x86.
MIN_EXPONENT = -80.0
# Coordinates count up to this many blurs (or units): squares must not overflow float32.
FARTHEST = 1e16
# Costs count up to this many rho, far beyond what is carried: the rounding of a potential above
# it would be as large as rho, and the masses that the potentials stand for anything.
DEAREST = 1e5


@dataclass(frozen=True)
class TransportSettings:
    """How one transport problem is posed and solved.

    ``blur``: square root of eps, in the unit of the points. ``reach``: square root of rho, same
    unit: how far mass is carried before it is cheaper to let it go; ``None`` is balanced and
    wants equal total masses. ``scaling``: factor of the blur from one annealing step to the next;
    nearer 1 the potentials come nearer to the optimum (docs/distillation.md has figures).
    ``final_steps``: further steps at the last eps. ``debias``: divergence S instead of OT.
    ``exact``: value and derivative of the formula, at the potentials that were reached. Off: what
    GeomLoss computes (0.2.4 and 0.3.1): unbalanced, its iterations stop before the cost of
    unequal masses is all there, the more so the smaller the sets are beside ``reach``, and
    derivatives have a factor (rho + eps/2) / (rho + eps); without ``debias`` eps (mass a mass b -
    ½ mass a - ½ mass b) is missing.
    ``knee``: distance from which the cost grows linearly, same unit; ``None``: squared throughout.
    """

    blur: float = 0.01
    reach: float | None = None
    scaling: float = 0.5
    final_steps: int = 0
    debias: bool = True
    exact: bool = True
    knee: float | None = None

    def __post_init__(self) -> None:
        if self.knee is not None:
            _require(self.knee > 0 and math.isfinite(self.knee), "knee", self.knee,
                     "above 0, or None for the squared distance")
        _require(self.blur > 0 and math.isfinite(self.blur), "blur", self.blur, "above 0")
        if self.reach is not None:
            _require(self.reach > 0 and math.isfinite(self.reach), "reach", self.reach,
                     "above 0, or None for balanced transport")
        _require(0 < self.scaling < 1, "scaling", self.scaling, "between 0 and 1, exclusive")
        _require(self.final_steps >= 0, "final_steps", self.final_steps, "0 or more")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {value}")


def transport_cost(x: Tensor, a: Tensor, y: Tensor, b: Tensor, settings: TransportSettings,
                   *, diameter: Tensor | None = None, position_weight: float = 1.0,
                   mass_weight: float = 1.0) -> Tensor:
    """S (or OT with ``debias=False``) of each pair of weighted sets.

    A point with mass 0 (or less) is no point: sets are padded with it and the padding may hold
    anything. A pair with an empty side gives 0 without gradient. In balanced mode the masses of a
    pair must have equal sums (not checked, it would stop a GPU). Half precision is computed in
    float32. NaN comes out only where NaN goes in; S is at least 0 whatever is rounded away.

    Args:
        x, y: (P, n, d) and (P, m, d) points of P pairs, any unit shared with blur and reach.
        a, b: (P, n) and (P, m) masses, at least 0.
        settings: see :class:`TransportSettings`.
        diameter: (P,) where the annealing starts; the pair's own bounding box when left out.
        position_weight: factor on the derivative by the points; the value does not change.
        mass_weight: factor on the derivative by the masses; the value does not change.

    Returns:
        (P,) values, float32 or float64; differentiable once, by x, a, y and b.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_shapes(x, a, y, b, diameter)
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype),
                                torch.promote_types(a.dtype, b.dtype))
    dtype = torch.promote_types(dtype, torch.float32)
    x, a, y, b = (widened(tensor, dtype) for tensor in (x, a, y, b))
    farthest = FARTHEST * min(settings.blur, 1.0)
    x, y = (torch.where((mass <= 0)[..., None], 0, points).clamp(-farthest, farthest)
            for points, mass in ((x, a), (y, b)))
    if diameter is None:
        diameter = set_diameter(x, a > 0, y, b > 0)
    weights = (float(position_weight), float(mass_weight))
    return _Transport.apply(x, a, y, b, diameter.detach().to(dtype), settings, weights)


def _check_shapes(x: Tensor, a: Tensor, y: Tensor, b: Tensor, diameter: Tensor | None) -> None:
    for name, points, masses in (("x, a", x, a), ("y, b", y, b)):
        if points.ndim != 3 or masses.shape != points.shape[:2]:
            raise ValueError(f"{name} must be (P, n, d) and (P, n), got {tuple(points.shape)} "
                             f"and {tuple(masses.shape)}")
    if len(x) != len(y) or x.shape[2] != y.shape[2]:
        raise ValueError("x and y must have the same number of problems and dimensions, got "
                         f"{tuple(x.shape)} and {tuple(y.shape)}")
    if diameter is not None and diameter.shape != x.shape[:1]:
        raise ValueError(f"diameter must be ({len(x)},), got {tuple(diameter.shape)}")


class _Transport(torch.autograd.Function):
    """Value and closed-form derivatives together; nothing of the iterations is kept."""

    @staticmethod
    def forward(ctx, x, a, y, b, diameter, settings, weights):
        needs = ctx.needs_input_grad[:4]
        with torch.autocast(x.device.type, enabled=False):
            value, gradients = _solve_chunked(x, a, y, b, diameter, settings, weights, needs)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        out = []
        for gradient in ctx.saved_tensors:
            shape = (-1,) + (1,) * (gradient.ndim - 1) if gradient is not None else None
            out.append(None if gradient is None else gradient * grad.reshape(shape))
        return (*out, None, None, None)


def _solve_chunked(x, a, y, b, diameter, settings, weights, needs):
    """Values (P,) and [dx, da, dy, db] (``None`` where not needed), a bounded chunk at a time."""
    problems, longest = len(x), max(x.shape[1], y.shape[1])
    value = x.new_zeros(problems)
    scale = (weights[0], weights[1]) * 2
    wanted = [need and weight != 0 for need, weight in zip(needs, scale)]
    gradients = [torch.zeros_like(tensor) if need else None
                 for tensor, need in zip((x, a, y, b), needs)]
    if problems == 0 or min(x.shape[1], y.shape[1]) == 0:
        return value, gradients
    halves = 4 if settings.debias else 2
    budget = CHUNK_NUMBERS["cpu" if x.device.type == "cpu" else "other"]
    step = max(1, budget // (halves * longest * longest))
    for start in range(0, problems, step):
        part = slice(start, start + step)
        result = _solve(x[part], a[part], y[part], b[part], diameter[part], settings, wanted)
        value[part] = result[0]
        for whole, piece, weight in zip(gradients, result[1], scale):
            if piece is not None:
                torch.mul(piece, weight, out=whole[part])
    return value, gradients


def _solve(x, a, y, b, diameter, settings, wanted):
    """:func:`_solve_chunked` for one chunk, always on full sets."""
    # A NaN mass counts as a point, so that it is seen in the result.
    filled = (~(a <= 0)).any(1) & (~(b <= 0)).any(1)
    # Empty pairs become a unit mass on every point and are thrown away at the end.
    a_solve, b_solve = (torch.where(filled[:, None], mass.clamp(min=0), 1) for mass in (a, b))
    problem = _Halves(x, a_solve, y, b_solve, settings)
    potentials, plan = problem.anneal(diameter, settings)
    value, position, mass = _envelope(problem, potentials, settings)
    # Its derivative is not that of the bound: a pull that is rounded away in S still is one.
    value = torch.where(filled, value.clamp(min=0) if settings.debias else value, 0)
    gradients: list[Tensor | None] = [None] * 4
    for side, (points, masses) in enumerate(((x, a), (y, b))):
        real = filled[:, None] & ~(masses <= 0)
        if wanted[2 * side]:
            by_point = problem.position_gradient(position, plan, side, points.shape[1])
            gradients[2 * side] = torch.where(real[..., None], by_point, 0)
        if wanted[2 * side + 1]:
            by_mass = mass[:masses.shape[1], side].transpose(0, 1)
            gradients[2 * side + 1] = torch.where(real, by_mass, 0)
    return value, gradients


class _Halves:
    """The directed half-problems x<-y, y<-x and, debiased, x<-x, y<-y as one tensor (H, P).

    N is the length of the longer set. A half has own points i, whose potential it updates, and
    other points j, over which it takes the soft minimum; problems come last.
    """

    def __init__(self, x: Tensor, a: Tensor, y: Tensor, b: Tensor,
                 settings: TransportSettings) -> None:
        debias, self.knee = settings.debias, settings.knee
        self.dearest = None if settings.reach is None else DEAREST * settings.reach**2
        length = max(x.shape[1], y.shape[1])
        sides = torch.stack([_padded(x, length), _padded(y, length)])          # (2, P, N, d)
        masses = torch.stack([_padded(a, length), _padded(b, length)])         # (2, P, N)
        self.points = sides.permute(3, 2, 0, 1).contiguous()                   # (d, N, 2, P)
        self.masses = masses.permute(2, 0, 1).contiguous()                     # (N, 2, P)
        self.own = [0, 1, 0, 1] if debias else [0, 1]
        self.other = [1, 0, 0, 1] if debias else [1, 0]
        # The half whose potential lives on the other points.
        self.partner = [1, 0, 2, 3] if debias else [1, 0]
        self.log_masses = self.masses.log()[:, self.other]                     # (N, H, P)
        self.shares = (self.masses / self.masses.sum(0))[:, self.own]          # (N, H, P)

    def cost(self) -> Tensor:
        """Cost of i to j as (N_j, N_i, H, P); differences first, since eps may be 1e-6."""
        total = None
        for points in self.points:
            delta = points[:, self.other][:, None] - points[:, self.own][None]
            delta.mul_(delta)
            total = delta if total is None else total.add_(delta)
        if self.knee is None:
            total.mul_(0.5)
        else:
            # k (sqrt(s + k²) - k) without cancellation where s is small.
            root = (total + self.knee**2).sqrt_()
            total.mul_(self.knee).div_(root.add_(self.knee))
        return total if self.dearest is None else total.clamp_(max=self.dearest)

    def anneal(self, diameter: Tensor, settings: TransportSettings) -> tuple[Tensor, Tensor]:
        """Potentials f (N, H, P) and the soft assignment (N_j, N_i, H, P), which sums to 1 over j.

        Simultaneous updates of both sides, averaged with the last ones; the very last step, which
        carries the derivative, is taken whole. f is ``form`` (mean 0 over the masses) + ``level``.
        """
        cost = self.cost()
        work = torch.empty_like(cost)
        form = torch.zeros_like(self.log_masses)
        level = torch.zeros_like(form[0])
        for eps, rate in zip(*_schedule(diameter, settings)):
            damping = _damping(eps, settings)
            soft, total = self._soft_minimum(form, cost, eps, work)
            form.add_(soft.mul_(damping).sub_(form).mul_(rate))
            # The level of the other side goes through the soft minimum as it is.
            level = level - rate * (level + damping * level[self.partner])
            mean = (form * self.shares).sum(0)
            form.sub_(mean)
            level = level + mean
            if settings.exact and settings.reach is not None:
                level[:2] += self._level_shift(form[:, :2] + level[:2], settings.reach**2)
        return form + level, work.div_(total)

    def _soft_minimum(self, form: Tensor, cost: Tensor, eps: Tensor,
                      work: Tensor) -> tuple[Tensor, Tensor]:
        """-eps log sum_j m_j exp((f_j - cost_ij) / eps), (N, H, P).

        The terms of the sum, up to a factor, stay in ``work``; their sum is the second result.
        """
        height = torch.addcdiv(self.log_masses, form[:, self.partner], eps)
        torch.addcmul(height[:, None], cost, -1 / eps, out=work)
        top = work.amax(0)
        total = work.sub_(top).clamp_(min=MIN_EXPONENT).exp_().sum(0)
        return total.log().add_(top).mul_(-eps), total

    def _level_shift(self, potentials: Tensor, rho: float) -> Tensor:
        """(2, P): what to add to f and take off g so that the dual value is largest.

        In closed form, since the plan only sees f + g (Séjourné et al., AISTATS 2022). Plain
        iterations hardly move along this direction once eps is far below rho, and leave the cost
        of unequal masses short where the annealing starts low.
        """
        left = (self.masses.log() - potentials / rho).logsumexp(0)
        shift = 0.5 * rho * (left[0] - left[1])
        return torch.stack([shift, -shift])

    def position_gradient(self, factor: Tensor, plan: Tensor, side: int, length: int) -> Tensor:
        """(P, n, d): sum over the side's halves of factor_i times the mean derivative of the cost
        to its targets, which is x_i - y_j where there is no knee."""
        if self.knee is not None:
            plan = plan * self._slope()
        out = []
        for points in self.points:
            total = 0
            for half in range(side, len(self.own), 2):
                delta = points[:length, self.own[half]] - points[:, self.other[half]][:, None]
                pull = (plan[:, :length, half] * delta).sum(0)
                total = total + factor[:length, half] * pull
            out.append(total)
        return torch.stack(out, -1).transpose(0, 1)


    def _slope(self) -> Tensor:
        """(N_j, N_i, H, P): the cost's derivative by half the squared distance."""
        square = sum((points[:, self.other][:, None] - points[:, self.own][None]).square()
                     for points in self.points)
        return self.knee / (square + self.knee**2).sqrt()


def _padded(tensor: Tensor, length: int) -> Tensor:
    """(P, n, ...) with zeros up to (P, length, ...)."""
    if tensor.shape[1] == length:
        return tensor
    missing = tensor.new_zeros(tensor.shape[0], length - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], 1)


def _longest(settings: TransportSettings) -> float:
    """Where annealing starts at most: a distance of which the cost is the dearest."""
    if settings.reach is None:
        return FARTHEST
    dearest, knee = DEAREST * settings.reach**2, settings.knee or math.inf
    return max(math.sqrt(2 * dearest), dearest / knee, settings.blur)


def _damping(eps: Tensor, settings: TransportSettings) -> Tensor | float:
    """rho / (rho + eps): how much of a soft minimum the marginal penalty lets through."""
    return 1.0 if settings.reach is None else 1 / (1 + eps / settings.reach**2)


def _schedule(diameter: Tensor, settings: TransportSettings) -> tuple[Tensor, Tensor]:
    """Per step and problem, (T, P): eps, and how far the potentials move.

    A start at diameter² from nothing (1), averaged steps (½) from diameter², twice, down by
    scaling² a step to blur², as many as each problem's own diameter asks for and then none (0);
    at last one whole step at blur² (1).
    """
    # Step counts must not depend on the precision of the points.
    first = diameter.double().clamp(1e-3 * settings.blur, _longest(settings))
    factor = math.log(settings.scaling)
    middle = ((math.log(settings.blur) - first.log()) / factor).ceil().clamp(min=0)
    last = 2 + middle.nan_to_num() + settings.final_steps
    step = torch.arange(int(last.max()) + 2, device=first.device)[:, None]
    shrunk = first * torch.exp(factor * (step - 2).clamp(min=0))
    eps = torch.where(step - 2 < middle, shrunk, settings.blur).square()
    rate = torch.where(step <= last, 0.5, 0.0)
    rate[0], rate[-1] = 1.0, 1.0
    return eps.to(diameter.dtype), rate.to(diameter.dtype)


def _envelope(problem: _Halves, potentials: Tensor,
              settings: TransportSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Value (P,), factors of the position derivative (N, H, P), derivative by mass (N, 2, P)."""
    masses, halves = problem.masses, len(problem.own)
    eps = settings.blur**2
    # Potentials of padding say nothing and must not overflow.
    potentials = torch.where(masses[:, problem.own] != 0, potentials, 0)
    cross = potentials[:, :2]
    own = potentials[:, 2:] if settings.debias else torch.zeros_like(cross)
    sign = masses.new_tensor([1.0, 1, -1, -1][:halves])[:, None]
    factor, pull = 1.0, sign * masses[:, problem.own]
    if settings.reach is None:
        by_mass = cross - own
        value = (masses * by_mass).sum((0, 1))
    else:
        rho = settings.reach**2
        carried = (-potentials / rho).clamp(max=MAX_EXPONENT).exp()
        own_carried = carried[:, 2:] if settings.debias else torch.ones_like(cross)
        # exp(-own/rho) - exp(-cross/rho) without cancellation where the two are close.
        exponent = (own - cross) / rho
        lost = torch.where(exponent < 1, -own_carried * torch.expm1(exponent),
                           own_carried - carried[:, :2])
        value = (rho + eps / 2) * (masses * lost).sum((0, 1))
        by_mass, pull = (rho + eps) * lost, pull * carried
        if not settings.exact:
            factor = (rho + eps / 2) / (rho + eps)
    if settings.exact and not settings.debias:
        totals = masses.sum(0)                                                  # (2, P)
        value = value + eps * (totals.prod(0) - totals.mean(0))
        by_mass = by_mass + eps * (totals.flip(0) - 1)
    return value, factor * pull, factor * by_mass
