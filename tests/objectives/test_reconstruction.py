"""Reconstruction losses against plain loops over captions, words and frames."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from limner.core.types import BOS, EOS, PAD, Batch, Features, Layout, Pixels
from limner.models.captioner import Captioner, FromPixels
from limner.objectives import CrossEntropy, GlobalReconstruction, LocalReconstruction, build_objective
from limner.objectives.context import Context
from limner.objectives.reconstruction import Reconstruction
from tests.models.captioners import D, Mute, N, random_features, small

TOKENS = torch.tensor([[BOS, 4, 5, EOS, PAD], [BOS, 6, 7, 8, EOS], [BOS, EOS, PAD, PAD, PAD], [BOS, 5, 5, 5, 5]])
H = 7


def setting(
    config: GlobalReconstruction | LocalReconstruction, seed: int = 0
) -> tuple[Captioner, Reconstruction, Batch]:
    model = small("sa_lstm", masked=not config.published)
    torch.manual_seed(seed)
    objective = build_objective(config, Context(hidden=H, feature_dim=D))
    assert isinstance(objective, Reconstruction)
    features = random_features()
    if config.published:  # a reader pads with zeros
        features = replace(features, grid=features.grid.masked_fill(~features.mask[..., None], 0.0))
    return model, objective.eval(), Batch(("a", "b", "c", "d"), features, TOKENS)


def states(model: Captioner, batch: Batch, row: int, published: bool) -> tuple[list[Tensor], list[Tensor]]:
    """One caption, one word at a time -> the states that are pooled or attended, and those that are rebuilt from."""
    memory = model.encode(batch.inputs.map(lambda x: x[row : row + 1]))
    state, found = model.init_state(memory), []
    words = [word for word in TOKENS[row].tolist() if word != PAD]
    for word in words[:-1]:
        state = model.step(torch.tensor([word]), state, memory).state
        hidden = model.hidden(state)
        assert hidden is not None
        found.append(hidden[0])
    if not published:
        return found, found
    rebuilt = [torch.zeros(H), *found]
    return rebuilt[: len(words) - 1 if words[-1] == EOS else len(words)], rebuilt


def lstm(cell: nn.Module, ending: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    weights = {name: getattr(cell, f"{name}{ending}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    gates = weights["weight_ih"] @ x + weights["bias_ih"] + weights["weight_hh"] @ h + weights["bias_hh"]
    i, f, g, o = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def slow_global(model: Captioner, objective: Reconstruction, batch: Batch) -> float:
    assert isinstance(batch.inputs, Features)
    published, errors = objective.config.published, []
    for row in range(4):
        read, rebuilt = states(model, batch, row, published)
        whole = torch.stack(read).mean(0)
        h, c, found = torch.zeros(D), torch.zeros(D), []
        for state in rebuilt:
            h, c = lstm(objective.reconstructor.lstm, "_l0", torch.cat([state, whole]), h, c)
            found.append(h)
        frames = batch.inputs.grid[row] if published else batch.inputs.grid[row][batch.inputs.mask[row]]
        errors.append((torch.stack(found).mean(0) - frames.mean(0)).square())
    return torch.stack(errors).mean().item()


def slow_local(model: Captioner, objective: Reconstruction, batch: Batch) -> float:
    assert isinstance(batch.inputs, Features)
    published, errors, net = objective.config.published, [], objective.reconstructor
    for row in range(4):
        read, _ = states(model, batch, row, published)
        h, c = torch.zeros(D), torch.zeros(D)
        for frame in range(N):
            scores = torch.stack(
                [
                    (net.attend.score.weight @ torch.tanh(net.attend.query(h) + net.attend.key(state)))[0]
                    for state in read
                ]
            )
            context = sum(weight * state for weight, state in zip(scores.softmax(0), read, strict=True))
            h, c = lstm(net.lstm, "", context, h, c)
            if published or batch.inputs.mask[row, frame]:
                errors.append((h - batch.inputs.grid[row, frame]).square())
    return torch.stack(errors).mean().item()


CASES: list[tuple[GlobalReconstruction | LocalReconstruction, Callable[..., float]]] = [
    (GlobalReconstruction(), slow_global),
    (GlobalReconstruction(published=True), slow_global),
    (LocalReconstruction(attention=4), slow_local),
    (LocalReconstruction(attention=4, published=True), slow_local),
]


@pytest.mark.parametrize(("config", "slow"), CASES)
def test_the_loss_equals_a_plain_loop(config: GlobalReconstruction | LocalReconstruction, slow: Callable[..., float]):
    model, objective, batch = setting(config)
    loss = objective(model, batch)
    with torch.no_grad():
        error = slow(model, objective, batch)
    assert loss.logs["reconstruction"] == pytest.approx(error, rel=1e-5)
    plain = CrossEntropy()(model, batch)
    assert loss.logs["xe"] == plain.logs["xe"]
    assert loss.value.item() == pytest.approx(plain.value.item() + config.weight * error, rel=1e-5)


@pytest.mark.parametrize("config", [config for config, _ in CASES])
def test_padding_and_neighbours_change_nothing(config: GlobalReconstruction | LocalReconstruction):
    model, objective, batch = setting(config)
    longer = replace(batch, tokens=torch.cat([TOKENS, torch.full((4, 3), PAD)], 1))
    one = objective(model, batch).logs["reconstruction"]
    assert objective(model, longer).logs["reconstruction"] == pytest.approx(one, rel=1e-5)
    order = [2, 0, 3, 1]
    mixed = Batch(batch.ids, batch.inputs.map(lambda x: x[order]), TOKENS[order])
    assert objective(model, mixed).logs["reconstruction"] == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("config", [config for config, _ in CASES])
def test_captions_of_a_medium_share_its_features(config: GlobalReconstruction | LocalReconstruction):
    model, objective, batch = setting(config)
    few, many = (batch.inputs.map(lambda x, rows=rows: x[rows]) for rows in ([1, 2], [1, 1, 2, 2]))
    shared, alone = (objective(model, replace(batch, inputs=inputs)) for inputs in (few, many))
    assert shared.logs["reconstruction"] == pytest.approx(alone.logs["reconstruction"], rel=1e-5)


@pytest.mark.parametrize("config", [GlobalReconstruction(weight=1.0), LocalReconstruction(weight=1.0, attention=4)])
def test_both_networks_learn_from_it(config: GlobalReconstruction | LocalReconstruction):
    """Every parameter of the reconstructor, and of the captioner what its hidden states depend on: the gradient is the
    slope of the reconstruction along a random direction.  The word head has none."""
    model, objective, batch = setting(config)

    def reconstruction() -> Tensor:
        return objective(model, batch).value - CrossEntropy()(model, batch).value

    reconstruction().backward()
    draw = torch.Generator().manual_seed(2)
    for parameter in (*objective.parameters(), model.carry[0].weight, model.embed.weight, model.attend.key.weight):
        direction, values = torch.randn(parameter.shape, generator=draw), []
        with torch.no_grad():
            for step in (0.01, -0.02, 0.01):
                parameter.add_(step * direction)
                values.append(reconstruction().item())
        slope = (values[0] - values[1]) / 0.02
        assert parameter.grad is not None
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=0.01, abs=1e-4)
    assert min(it.grad.abs().max() for it in (model.carry[0].weight, model.attend.key.weight)) > 1e-6
    assert model.head.weight.grad is None or model.head.weight.grad.abs().max() < 1e-6


def test_masked_cells_are_not_reconstructed():
    model, objective, batch = setting(LocalReconstruction(attention=4))
    other = replace(batch.inputs, grid=batch.inputs.grid.masked_fill(~batch.inputs.mask[..., None], 9.0))
    one, two = (objective(model, replace(batch, inputs=inputs)).value.item() for inputs in (batch.inputs, other))
    assert one == pytest.approx(two, rel=1e-6)


class Shrunk(nn.Module):
    """An encoder that could make its features easy to rebuild: it scales them by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pixels: Pixels) -> Features:
        grid = pixels.frames.flatten(2)[:, :, :D] * self.scale
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool), Layout(grid.shape[1], 1, 1))


def test_from_pixels_the_target_is_the_encoders_features_without_gradient():
    model, objective, _ = setting(GlobalReconstruction(weight=1.0))
    frames = torch.randn(4, 3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    encoder = Shrunk()
    batch = Batch(("a", "b", "c", "d"), Pixels(frames), TOKENS)
    loss = objective(FromPixels(encoder, model), batch)
    features = replace(batch, inputs=encoder(Pixels(frames)))
    assert loss.logs["reconstruction"] == pytest.approx(objective(model, features).logs["reconstruction"])
    (step,) = torch.autograd.grad(loss.value - CrossEntropy()(FromPixels(encoder, model), batch).value, encoder.scale)
    with torch.no_grad():  # the goal held, the encoder's scale moved: the slope of what the decoder reads alone
        goal, slopes = encoder(Pixels(frames)), []
        objective.target = lambda features, rows: goal  # type: ignore[method-assign]
        for scale in (0.99, 1.01):
            encoder.scale.fill_(scale)
            slopes.append(objective(FromPixels(encoder, model), batch).logs["reconstruction"])
    assert step.item() == pytest.approx((slopes[1] - slopes[0]) / 0.02, rel=0.05)


def test_a_captioner_without_hidden_states_is_refused():
    _, objective, batch = setting(GlobalReconstruction())
    with pytest.raises(ValueError, match="recnet_global needs a captioner with hidden states, such as sa_lstm"):
        objective(Mute(small("sa_lstm")), batch)
    with pytest.raises(ValueError, match="reconstruction needs a captioner with hidden states, such as sa_lstm"):
        build_objective(GlobalReconstruction(), Context(student=Mute(small("sa_lstm")), sample=lambda: batch))


@pytest.mark.parametrize(("name", "width"), [("spatial_transformer", 8), ("sft", 24), ("xlan", None)])
def test_the_reconstructor_is_as_wide_as_the_students_hidden_states(name: str, width: int | None):
    """Of a transformer it is not the field `hidden`, which is its feed-forward layers'."""
    _, _, batch = setting(GlobalReconstruction())
    student = small(name)
    objective = build_objective(GlobalReconstruction(), Context(feature_dim=D, student=student, sample=lambda: batch))
    assert isinstance(objective, Reconstruction) and objective(student, batch).value.isfinite()
    assert width is None or objective.reconstructor.lstm.input_size == 2 * width


def test_plain_objectives_are_used_as_they_are():
    config = CrossEntropy(label_smoothing=0.1)
    assert build_objective(config, Context(hidden=H, feature_dim=D)) is config
