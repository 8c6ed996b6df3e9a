"""`stategrad demo`: trains a classifier of handwritten digits and leaves what happened in a folder.

The model has batch normalisation (running statistics in States) and dropout (a random State), the optimizer
has momentum (States), and one compiled step does all: value, gradient and update.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits

import stategrad
from stategrad import ParamState, State, nn
from stategrad.graph import FlatStates
from stategrad.passes import DumpTo
from stategrad.random import RandomState

BATCH = 64
DROPOUT = 0.25
WANTED_ACCURACY = 0.96
GRADIENT_TOLERANCE = 1e-4


class Classifier(nn.Module):
    """From 64 pixels to the logits of ten digits."""

    def __init__(self, rng: RandomState) -> None:
        sizes = (64, 128, 64)
        self.layers = [nn.Linear(m, n, use_bias=False, rng=rng) for m, n in pairwise(sizes)]
        self.norms = [nn.BatchNorm(n) for n in sizes[1:]]
        self.dropout = nn.Dropout(DROPOUT, rng=rng)
        self.head = nn.Linear(sizes[-1], 10, rng=rng)

    def __call__(self, x: Any, *, training: bool) -> jax.Array:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.relu(norm(layer(x), training=training))
            x = self.dropout(x, training=training)
        return self.head(x)


class Momentum(nn.Module):
    """Gradient descent with momentum: a velocity State for each parameter."""

    def __init__(self, parameters: FlatStates[State], rate: float, decay: float) -> None:
        self.parameters, self.rate, self.decay = parameters, rate, decay
        self.velocity = FlatStates(
            {path: State(jnp.zeros_like(p.value), f"velocity.{p.name}") for path, p in parameters.items()}
        )

    def update(self, gradients: dict[Any, jax.Array]) -> None:
        """Moves every parameter against its gradient."""
        for path, parameter in self.parameters.items():
            velocity = self.velocity[path]
            velocity.value = self.decay * velocity.value + gradients[path]
            parameter.value = parameter.value - self.rate * velocity.value


def cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """The mean negative logarithm of the probability given to the right digit."""
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(labels, 10), axis=1))


class Training:
    """The model, its optimizer, and the compiled functions that use them."""

    def __init__(self, seed: int) -> None:
        self.rng = RandomState(seed, "rng")
        self.model = Classifier(self.rng)
        self.parameters = self.model.states(ParamState)
        self.optimizer = Momentum(self.parameters, rate=0.05, decay=0.9)
        self.gradient = stategrad.value_and_grad(self.loss, grad_states=self.parameters)
        self.step = stategrad.jit(self.one_step)
        self.predict = stategrad.jit(lambda x: jnp.argmax(self.model(x, training=False), axis=1))

    def loss(self, x: Any, y: Any) -> jax.Array:
        """The training loss of a batch; moves the running statistics and the random State."""
        return cross_entropy(self.model(x, training=True), y)

    def one_step(self, x: Any, y: Any) -> jax.Array:
        """Loss, gradient and update: one program."""
        loss, gradients = self.gradient(x, y)
        self.optimizer.update(gradients)
        return loss

    def accuracy(self, x: Any, y: Any) -> float:
        """The part of the images that is recognised."""
        return float(np.mean(np.asarray(self.predict(x)) == y))


# ------------------------------------------------------------------ data
@dataclass(frozen=True)
class Digits:
    """1,797 images of 8 x 8 pixels in [0, 1], a fifth of them kept for the test."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @staticmethod
    def load(seed: int) -> "Digits":
        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(x))
        x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
        kept = len(x) // 5
        return Digits(x[kept:], y[kept:], x[:kept], y[:kept])

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The training images in a new order, in full batches."""
        order = rng.permutation(len(self.x))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield self.x[chosen], self.y[chosen]


# ------------------------------------------------------------------ the check of one gradient
def pure_loss(parameters: dict[Any, Any], key: jax.Array, x: Any, y: Any) -> jax.Array:
    """What `Training.loss` computes, as a function without States: parameters and key are arguments."""
    for i in range(2):
        x = x @ parameters["layers", i, "weight"]
        mean, variance = x.mean(0), x.var(0)
        x = (x - mean) / jnp.sqrt(variance + 1e-5)
        x = x * parameters["norms", i, "scale"] + parameters["norms", i, "shift"]
        key, drawn = jax.random.split(key)
        kept = jax.random.bernoulli(drawn, 1 - DROPOUT, x.shape)
        x = jnp.where(kept, jnp.maximum(x, 0) / (1 - DROPOUT), 0)
    logits = x @ parameters["head", "weight"] + parameters["head", "bias"]
    return cross_entropy(logits, y)


def gradient_error(training: Training, x: Any, y: Any) -> float:
    """How far our gradient is from `jax.grad` of `pure_loss`, relative to the largest entry of each array."""
    values = {path: state.value for path, state in training.parameters.items()}
    key = jax.random.wrap_key_data(training.rng.value)
    _, ours = training.gradient(x, y)
    leaves, places = list(values.values()), list(values)
    theirs = jax.jit(jax.grad(lambda ps: pure_loss(dict(zip(places, ps, strict=True)), key, x, y)))(leaves)
    pairs = list(zip((ours[path] for path in places), theirs, strict=True))
    return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)


# ------------------------------------------------------------------ what is left behind
@dataclass
class Curve:
    """The course of a training: the loss of each step, the test accuracy after each epoch."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def save(self, file: Path) -> None:
        """Draws both, the steps of an epoch side by side."""
        figure = Figure(figsize=(8, 4), layout="constrained")
        left = figure.subplots()
        per_epoch = len(self.losses) / len(self.accuracies)
        left.plot(
            np.arange(1, len(self.losses) + 1) / per_epoch, self.losses, color="tab:blue", linewidth=0.7
        )
        left.set(xlabel="epoch", ylabel="training loss", yscale="log")
        right = left.twinx()
        right.plot(range(1, len(self.accuracies) + 1), self.accuracies, color="tab:orange", marker=".")
        right.set(ylabel="test accuracy", ylim=(min(0.8, *self.accuracies), 1.0))
        figure.suptitle(f"handwritten digits, {self.accuracies[-1]:.1%} of the test images recognised")
        figure.savefig(file, dpi=150)


def dump(fn: Any, folder: Path, *args: Any) -> int:
    """Writes the IR of a transformed function before and after each pass; returns how many files that are."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.sg"):
        old.unlink()
    fn.trace(*args).run_passes(DumpTo(folder))
    return len(list(folder.glob("*.sg")))


# ------------------------------------------------------------------ the run
def train(training: Training, digits: Digits, epochs: int, console: Console, seed: int) -> Curve:
    """Trains, with a progress bar."""
    curve, rng = Curve(), np.random.default_rng(seed)
    columns = TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("compiling", total=epochs)
        for epoch in range(1, epochs + 1):
            losses = [float(loss) for loss in [training.step(x, y) for x, y in digits.batches(rng)]]
            accuracy = training.accuracy(digits.x_test, digits.y_test)
            curve.losses += losses
            curve.accuracies.append(accuracy)
            shown = f"epoch {epoch}  loss {np.mean(losses):.4f}  test {accuracy:.2%}"
            progress.update(task, advance=1, description=shown)
    return curve


def run(out: Path, epochs: int, seed: int, console: Console) -> bool:
    """The whole demo; returns whether the gradient and the accuracy are as they should be."""
    started = time.perf_counter()
    digits, training = Digits.load(seed), Training(seed)
    console.print(
        f"{len(digits.x)} images to train with, {len(digits.x_test)} to test with\n{training.model}"
    )
    x, y = digits.x[:BATCH], digits.y[:BATCH]
    error = gradient_error(training, x, y)
    console.print(f"gradient against jax.grad of the pure function: largest difference {error:.1e}")

    curve = train(training, digits, epochs, console, seed)
    accuracy = curve.accuracies[-1]
    console.print(f"test accuracy {accuracy:.2%} after {len(curve.losses)} steps")

    out.mkdir(parents=True, exist_ok=True)
    curve.save(out / "curve.png")
    counts = {name: dump(fn, out / name, x, y) for name, fn in _shown(training).items()}
    (out / "step.stablehlo.mlir").write_text(training.step.lower(x, y).as_text(debug_info=True))
    files = ", ".join(f"{name}/ ({n} .sg files)" for name, n in counts.items())
    console.print(f"in {out}/: curve.png, {files}, step.stablehlo.mlir")
    console.print(f"{time.perf_counter() - started:.1f} s")
    return error < GRADIENT_TOLERANCE and accuracy >= WANTED_ACCURACY


def _shown(training: Training) -> dict[str, Callable[..., Any]]:
    return {"gradient": training.gradient, "step": training.step}


def main(arguments: list[str]) -> int:
    """Runs the demo with these command line arguments; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(prog="stategrad demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for what is left behind"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    good = run(options.out, options.epochs, options.seed, Console())
    if not good:
        wanted = f"a gradient within {GRADIENT_TOLERANCE} of JAX's and an accuracy of {WANTED_ACCURACY:.0%}"
        print(f"expected {wanted}", file=sys.stderr)
    return 0 if good else 1
