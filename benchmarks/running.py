"""Running: how long compiled gradients of real sizes take."""

from .libraries import BASELINE, Jax, Stategrad, gradients
from .measure import Effort, compare, geometric_mean
from .models import Model, cnn, mlp
from .models_sequence import gpt, lstm, neural_ode
from .table import Row, Table


def models(effort: Effort) -> list[tuple[Model, float]]:
    """The models, and what the ratio to JAX may be at most."""
    if effort.tiny:
        return [(mlp(2), 1.10), (lstm(4, 4, 2), 0.95), (neural_ode(2, 4, 4, 2), 1.10), (cnn(4, 2, 2), 1.10)]
    return [
        (mlp(4, 256, 128), 1.10),
        (gpt(), 1.10),
        (cnn(), 1.10),
        (lstm(256), 0.95),
        (neural_ode(), 1.10),
    ]


def run(effort: Effort) -> list[Table]:
    """Value and gradient of each model."""
    rows = []
    for model, must in models(effort):
        makers = gradients(model, [Jax(), Stategrad()])
        rows.append(Row(model.name, compare(makers, BASELINE, effort), must))
    rows.append(Row("geometric mean", geometric_mean(row.cells for row in rows), must=1.02))
    return [Table("Run time of compiled value and gradient", tuple(rows))]
