"""Values, additivity and errors of the torch metrics."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as peer

from zoo.errors import InputError
from zoo.orca.learn.pytorch import classification_metrics, pytorch_metrics
from zoo.orca.learn.pytorch.pytorch_metrics import (
    MAE,
    MSE,
    Accuracy,
    AdditiveMetric,
    BinaryAccuracy,
    BinaryCrossEntropy,
    CategoricalAccuracy,
    CategoricalCrossEntropy,
    KLDivergence,
    LogLoss,
    Poisson,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossEntropy,
    Top5Accuracy,
)

Pair = tuple[torch.Tensor, torch.Tensor]
ROWS, CLASSES = 403, 9


def scores_and_classes() -> Pair:
    scores = torch.randn(ROWS, CLASSES).softmax(-1)
    return scores, torch.randint(CLASSES, (ROWS,))


def scores_and_one_hot() -> Pair:
    scores, classes = scores_and_classes()
    return scores, F.one_hot(classes)


def chances_and_bits() -> Pair:
    bits = torch.randint(2, (ROWS,))
    return (torch.randn(ROWS) + bits).sigmoid(), bits


def two_distributions() -> Pair:
    return scores_and_classes()[0], scores_and_classes()[0]


def two_columns() -> Pair:
    return torch.randn(ROWS, 2), torch.randn(ROWS, 2)


def rates_and_counts() -> Pair:
    return torch.rand(ROWS) * 5, torch.poisson(torch.full((ROWS,), 3.0))


DATA: dict[type, Callable[[], Pair]] = {
    MAE: two_columns,
    MSE: two_columns,
    Accuracy: scores_and_classes,
    BinaryAccuracy: chances_and_bits,
    BinaryCrossEntropy: chances_and_bits,
    CategoricalAccuracy: scores_and_one_hot,
    CategoricalCrossEntropy: scores_and_one_hot,
    KLDivergence: two_distributions,
    LogLoss: scores_and_classes,
    Poisson: rates_and_counts,
    SparseCategoricalAccuracy: scores_and_classes,
    SparseCategoricalCrossEntropy: scores_and_classes,
    Top5Accuracy: scores_and_classes,
}
COUNTING = [Accuracy, BinaryAccuracy, CategoricalAccuracy, Top5Accuracy]

every_metric = pytest.mark.parametrize("metric_class", DATA, ids=lambda cls: cls.__name__)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


def value(metric: AdditiveMetric, preds: object, targets: object) -> torch.Tensor:
    metric(torch.as_tensor(preds), torch.as_tensor(targets))
    return metric.compute()


def close(expected: float) -> object:
    return pytest.approx(expected, rel=1e-6)


# Any split of the data


def summed_over_ranks(metric_class: type, pair: Pair, generator: torch.Generator) -> AdditiveMetric:
    """Shuffle, deal rows to up to six ranks in uneven batches (some empty), and add up."""
    order = torch.randperm(ROWS, generator=generator)
    ranks = [metric_class() for _ in range(int(torch.randint(1, 7, (), generator=generator)))]
    cuts = torch.randint(ROWS + 1, (8,), generator=generator).sort().values.tolist()
    for start, stop in zip([0, 0, *cuts], [0, *cuts, ROWS], strict=True):
        rank = ranks[int(torch.randint(len(ranks), (), generator=generator))]
        rank(pair[0][order[start:stop]], pair[1][order[start:stop]])
    whole: AdditiveMetric = metric_class()
    whole.load_state(torch.stack([rank.state() for rank in ranks]).sum(0))
    return whole


@every_metric
def test_any_split_gives_the_value_of_all_data(metric_class: type) -> None:
    pair = DATA[metric_class]()
    expected = value(metric_class(), *pair).item()
    # Float sums may round differently in another order; counts may not.
    tolerance = 0 if metric_class in COUNTING else 1e-12
    for seed in range(25):
        whole = summed_over_ranks(metric_class, pair, torch.Generator().manual_seed(seed))
        assert whole.compute().item() == pytest.approx(expected, rel=tolerance, abs=0)


@every_metric
def test_state_is_one_short_float64_vector(metric_class: type) -> None:
    metric = metric_class()
    length = len(metric.state())
    value(metric, *DATA[metric_class]())
    assert metric.state().dtype == torch.float64
    assert metric.state().shape == (length,)


@every_metric
def test_nothing_seen_is_nan(metric_class: type) -> None:
    assert metric_class().compute().isnan()


@every_metric
def test_no_rows_change_nothing(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    metric = metric_class()
    assert value(metric, preds[:0], targets[:0]).isnan()
    metric(preds, targets)
    before = metric.state()
    metric(preds[:0], targets[:0])
    assert torch.equal(metric.state(), before)


@every_metric
def test_reset_forgets(metric_class: type) -> None:
    metric = metric_class()
    value(metric, *DATA[metric_class]())
    metric.reset()
    assert not metric.state().any()


@every_metric
def test_state_is_apart_from_the_metric(metric_class: type) -> None:
    metric = metric_class()
    before = value(metric, *DATA[metric_class]())
    vector = metric.state()
    metric.load_state(vector)
    vector.zero_()
    metric.state().zero_()
    assert metric.compute() == before


@every_metric
def test_caller_keeps_tensors_unchanged(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    preds[0], preds[1] = 0, 1
    kept = preds.clone(), targets.clone()
    metric_class()(preds, targets)
    assert torch.equal(preds, kept[0])
    assert torch.equal(targets, kept[1])


@every_metric
def test_running_value_grows_with_calls(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    metric = metric_class()
    first = value(metric, preds[:50], targets[:50]).item()
    rest = value(metric, preds[50:], targets[50:]).item()
    assert first != rest
    assert rest == pytest.approx(value(metric_class(), preds, targets).item(), rel=1e-12)


@every_metric
def test_gradients_are_left_behind(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    if targets.is_floating_point():
        targets.requires_grad_()
    assert not value(metric_class(), preds.requires_grad_(), targets).requires_grad


@every_metric
def test_goes_on_after_inference_mode(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    metric = metric_class()
    with torch.inference_mode():
        metric.reset()
        metric(preds, targets)
    once = metric.compute().item()
    assert value(metric, preds, targets).item() == pytest.approx(once, rel=1e-12)


@every_metric
def test_travels_with_its_state(metric_class: type) -> None:
    metric = metric_class()
    before = value(metric, *DATA[metric_class]())
    assert pickle.loads(pickle.dumps(metric)).compute() == before


@every_metric
def test_state_of_another_length(metric_class: type) -> None:
    with pytest.raises(InputError, match="equally configured"):
        metric_class().load_state(torch.zeros(9))


@every_metric
def test_several_outputs_are_refused(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    with pytest.raises(InputError, match="received list"):
        metric_class()([preds, preds], targets)


@every_metric
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_value_on_the_device(metric_class: type) -> None:
    preds, targets = DATA[metric_class]()
    metric = metric_class()
    metric(preds[:9], targets[:9])
    found = value(metric, preds[9:].cuda(), targets[9:]).item()
    assert found == pytest.approx(value(metric_class(), preds, targets).item(), rel=1e-12)


def test_counts_stay_exact_beyond_float32() -> None:
    metric = Accuracy()
    metric.load_state(torch.tensor([2**24, 2**24, 0], dtype=torch.float64))
    value(metric, [1], [1])
    assert metric.state().tolist() == [2**24 + 1, 2**24 + 1, 0]


def test_sums_are_float64() -> None:
    metric = MAE()
    metric.load_state(torch.tensor([2.0**24, 1.0], dtype=torch.float64))
    value(metric, [0.5], [0.0])
    assert metric.state()[0] == 2**24 + 0.5


def test_public_names_are_the_metrics() -> None:
    helpers = {"AdditiveMetric", "PredictionPairs", "ShapeError", "adopt"}
    gathered = set(classification_metrics.__all__)
    assert {cls.__name__ for cls in DATA} == set(pytorch_metrics.__all__) - helpers - gathered


# Accuracies


def test_accuracy_of_classes_runs_on() -> None:
    metric = Accuracy()
    assert value(metric, [0, 2, 3, 4], [1, 2, 3, 4]) == 0.75
    assert value(metric, [0, 2, 3, 4], [1, 1, 2, 4]) == 0.5


@pytest.mark.parametrize("metric", [Accuracy(), SparseCategoricalAccuracy()])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_accuracy_of_class_scores(metric: AdditiveMetric, shape: tuple[int, ...]) -> None:
    metric.reset()
    scores, classes = scores_and_classes()
    found = value(metric, scores, classes.reshape(shape))
    assert found == peer.accuracy_score(classes, scores.argmax(-1))


def test_accuracy_takes_float_labels() -> None:
    assert value(SparseCategoricalAccuracy(), [[0.1, 0.9], [0.1, 0.9]], [1.0, 0.0]) == 0.5


def test_accuracy_cuts_probabilities_at_one_half() -> None:
    assert value(Accuracy(), [0.5, 0.4, 0.9, 0.1], [1, 0, 0, 1]) == 0.5


def test_accuracy_of_one_column_is_binary() -> None:
    assert value(Accuracy(), [[0.9], [0.2], [0.7]], [1, 0, 0]) == close(2 / 3)


@pytest.mark.parametrize("dim", [1, -1])
def test_accuracy_of_pixels(dim: int) -> None:
    classes = torch.randint(3, (2, 4, 5))
    scores = F.one_hot(classes, 3).double().movedim(-1, dim)
    classes[0, 0, :2] = (classes[0, 0, :2] + 1) % 3
    assert value(Accuracy(), scores, classes) == 38 / 40


@pytest.mark.parametrize(
    ("preds", "targets"), [((4,), (4, 3)), ((4, 3, 2), (4,)), ((4, 3), (5,)), ((4,), (3,))]
)
def test_accuracy_of_other_shapes(preds: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Reshape the labels"):
        value(Accuracy(), torch.rand(preds), torch.zeros(targets))


def test_categorical_accuracy() -> None:
    metric = CategoricalAccuracy()
    assert value(metric, [[0.1, 0.9, 0.8], [0.05, 0.95, 0]], [[0, 0, 1], [0, 1, 0]]) == 0.5


def test_categorical_accuracy_needs_one_hot() -> None:
    with pytest.raises(ValueError, match="targets"):
        value(CategoricalAccuracy(), torch.rand(4, 3), torch.zeros(4))


def test_binary_accuracy_threshold_for_each_call() -> None:
    metric = BinaryAccuracy()
    assert value(metric, [0.98, 1, 0, 0.6], [1, 1, 0, 0]) == 0.75
    metric(torch.tensor([0.98, 1, 0, 0.6]), torch.tensor([1, 1, 0, 0]), threshold=0.7)
    assert metric.compute() == 0.875


def test_binary_accuracy_is_strict() -> None:
    assert value(BinaryAccuracy(), [0.5], [0]) == 1


@pytest.mark.parametrize("metric_class", [BinaryAccuracy, BinaryCrossEntropy])
def test_column_against_row_is_no_square(metric_class: type) -> None:
    preds, targets = chances_and_bits()
    expected = value(metric_class(), preds, targets)
    assert value(metric_class(), preds[:, None], targets) == expected
    assert value(metric_class(), preds, targets[:, None]) == expected


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_top5(shape: tuple[int, ...]) -> None:
    scores, classes = scores_and_classes()
    expected = peer.top_k_accuracy_score(classes, scores, k=5, labels=np.arange(CLASSES))
    assert value(Top5Accuracy(), scores, classes.reshape(shape)) == expected


def test_top5_of_equal_scores_takes_lower_classes() -> None:
    assert value(Top5Accuracy(), torch.zeros(8, 8), torch.arange(8)) == 5 / 8


def test_top5_of_three_classes() -> None:
    assert value(Top5Accuracy(), torch.rand(3, 3), torch.tensor([0, 2, 3])) == close(2 / 3)


@pytest.mark.parametrize("classes", [3, 8])
def test_top5_of_nan_is_no_hit(classes: int) -> None:
    assert value(Top5Accuracy(), torch.full((1, classes), torch.nan), torch.tensor([0])) == 0


# Errors and divergences


def test_mae_and_mse_of_whole_numbers() -> None:
    preds, targets = [[1, -2], [1, 1]], [[0, 1], [0, 1]]
    assert value(MAE(), preds, targets) == 1.25
    assert value(MSE(), preds, targets) == 2.75


def test_unsigned_bytes_do_not_wrap() -> None:
    preds, targets = torch.tensor([1], dtype=torch.uint8), torch.tensor([3], dtype=torch.uint8)
    assert value(MAE(), preds, targets) == 2


def test_mae_and_mse_agree_with_peer() -> None:
    preds, targets = two_columns()
    assert value(MAE(), preds, targets) == close(peer.mean_absolute_error(targets, preds))
    assert value(MSE(), preds, targets) == close(peer.mean_squared_error(targets, preds))


@pytest.mark.parametrize("metric_class", [MAE, MSE, KLDivergence, Poisson])
@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_shapes_must_match(metric_class: type, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"predictions \(4, 2\) and targets \(4,\)"):
        value(metric_class(), torch.rand(4, 2), torch.rand(4))


@pytest.mark.parametrize("metric_class", [MAE, MSE, Poisson])
def test_one_column_is_read_as_its_numbers(metric_class: type) -> None:
    preds, targets = torch.rand(4), torch.rand(4)
    expected = value(metric_class(), preds, targets)
    assert value(metric_class(), preds[:, None], targets) == expected
    assert value(metric_class(), preds, targets[:, None]) == expected


def test_shape_error_survives_the_trip() -> None:
    with pytest.raises(RuntimeError) as caught:
        value(MAE(), torch.rand(2), torch.rand(3))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_binary_cross_entropy_runs_over_shapes() -> None:
    metric = BinaryCrossEntropy()
    assert value(metric, [[0.6, 0.4], [0.4, 0.6]], [[0, 1], [0, 0]]) == close(0.81492424)
    assert value(metric, [0.6, 0.4, 0.4, 0.6], [0, 1, 0, 0]) == close(0.81492424)


def test_binary_cross_entropy_agrees_with_torch() -> None:
    preds, targets = chances_and_bits()
    expected = F.binary_cross_entropy(preds.double(), targets.double()).item()
    assert value(BinaryCrossEntropy(), preds, targets) == close(expected)


def test_cross_entropy_clips_certainty() -> None:
    assert value(BinaryCrossEntropy(), [0.0, 1.0], [1, 0]) == close(-np.log(1e-7))
    one_hot = torch.tensor([[1, 0]])
    assert value(CategoricalCrossEntropy(), [[0.0, 1.0]], one_hot) == close(-np.log(1e-7))


def test_categorical_cross_entropies_of_reference() -> None:
    preds = [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]
    one_hot = [[0, 1, 0], [0, 0, 1]]
    assert value(CategoricalCrossEntropy(), preds, one_hot) == close(1.1769392)
    assert value(SparseCategoricalCrossEntropy(), preds, [1, 2]) == close(1.1769392)
    assert value(SparseCategoricalCrossEntropy(), preds, [[1], [2]]) == close(1.1769392)


def test_categorical_cross_entropies_agree_with_peer() -> None:
    scores, classes = scores_and_classes()
    expected = peer.log_loss(classes, scores.numpy(), labels=np.arange(CLASSES))
    assert value(SparseCategoricalCrossEntropy(), scores, classes) == close(expected)
    assert value(CategoricalCrossEntropy(), scores, F.one_hot(classes)) == close(expected)


@pytest.mark.parametrize("stray", [-1, 3])
def test_unknown_class_is_refused(stray: int) -> None:
    with pytest.raises(InputError, match="class numbers from 0 to 2"):
        value(SparseCategoricalCrossEntropy(), torch.rand(2, 3), torch.tensor([1, stray]))


def test_kl_divergence_agrees_with_torch() -> None:
    preds, targets = two_distributions()
    expected = F.kl_div(preds.log(), targets, reduction="batchmean").item()
    assert value(KLDivergence(), preds, targets) == close(expected)


def test_kl_divergence_of_zeros() -> None:
    assert value(KLDivergence(), [[0.6, 0.4], [0.4, 0.6]], [[0, 1], [0, 0]]) == close(0.45814306)


def test_poisson_of_reference() -> None:
    assert value(Poisson(), [[1, 1], [0, 0]], [[0, 1], [0, 0]]) == close(0.49999997)


def test_poisson_agrees_with_torch() -> None:
    preds, targets = rates_and_counts()
    expected = F.poisson_nll_loss(preds.double(), targets, log_input=False, eps=1e-7).item()
    assert value(Poisson(), preds, targets) == close(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions(dtype: torch.dtype) -> None:
    preds, targets = chances_and_bits()
    expected = value(BinaryCrossEntropy(), preds.to(dtype).double(), targets)
    assert value(BinaryCrossEntropy(), preds.to(dtype), targets) == expected


# The cut at one half


@pytest.mark.parametrize("metric_class", [Accuracy, BinaryAccuracy])
def test_logits_are_cut_at_zero(metric_class: type) -> None:
    logits, bits = torch.tensor([-1.0, 0.2, 0.4, 3.0]), torch.tensor([0, 1, 0, 1])
    assert value(metric_class(from_logits=True), logits, bits) == 0.75
    assert value(metric_class(), logits.sigmoid(), bits) == 0.75
    assert value(metric_class(threshold=0.9, from_logits=True), logits, bits) == 0.75


@pytest.mark.parametrize("metric_class", [Accuracy, BinaryAccuracy])
def test_logits_that_are_taken_for_probabilities_are_told_of(
    metric_class: type, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = [metric_class() for _ in range(2)]
    for rank in ranks:
        rank(torch.tensor([-1.0, 0.2, 3.0]), torch.tensor([0, 1, 1]))
    whole = metric_class()
    whole.load_state(ranks[0].state() + ranks[1].state())
    whole.compute()
    assert f"{metric_class.__name__} was taken of 4 scores outside 0 to 1" in caplog.text
    assert f"{metric_class.__name__}(from_logits=True)" in caplog.text


def test_probabilities_and_classes_are_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    value(Accuracy(), torch.tensor([0.0, 1.0, 0.3]), torch.tensor([0, 1, 1]))
    value(Accuracy(), torch.tensor([7, 2]), torch.tensor([7, 3]))
    value(Accuracy(), torch.tensor([[-5.0, 9.0]]), torch.tensor([1]))
    assert not caplog.text


@pytest.mark.parametrize("threshold", [0.0, 1.0, -2.0, float("nan")])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(InputError, match="a threshold between 0 and 1"):
        BinaryAccuracy(threshold=threshold)


# Log loss


@pytest.mark.parametrize("seed", range(20))
def test_log_loss_agrees_with_peer(seed: int) -> None:
    torch.manual_seed(seed)
    rare = torch.rand(300) < (0.5 if seed % 2 else 0.01)
    rare[:2] = torch.tensor([True, False])
    logits = torch.randn(300, dtype=torch.float64) * (1 + 20 * (seed % 3))
    chances = logits.sigmoid().float()
    chances = chances.double().numpy()
    expected = peer.log_loss(rare, chances)
    assert value(LogLoss(), chances, rare.long()).item() == pytest.approx(expected, abs=1e-6)
    exact = F.binary_cross_entropy_with_logits(logits, rare.double())
    assert value(LogLoss(from_logits=True), logits, rare.long()).item() == close(exact.item())
    scores, classes = scores_and_classes()
    sure = scores.double() / scores.double().sum(-1, keepdim=True)
    expected = peer.log_loss(classes, sure.numpy(), labels=range(CLASSES))
    assert value(LogLoss(), scores, classes).item() == pytest.approx(expected, abs=1e-6)
    logs = scores.log() * 3
    expected = F.cross_entropy(logs.double(), classes).item()
    assert value(LogLoss(from_logits=True), logs, classes).item() == close(expected)


def test_log_loss_of_certainty_that_was_wrong() -> None:
    certain = np.array([0.0, 1.0, 1.0], dtype=np.float32)
    expected = peer.log_loss([0, 1, 0], certain)
    assert value(LogLoss(), certain, torch.tensor([0, 1, 0])).item() == close(expected)


def test_log_loss_refuses_logits() -> None:
    with pytest.raises(InputError, match=r"from -2 to 3.*LogLoss\(from_logits=True\)"):
        value(LogLoss(), torch.tensor([-2.0, 3.0]), torch.tensor([0, 1]))


@pytest.mark.parametrize("labels", [[0, 2], [0, -1], [0.5, 1]])
def test_log_loss_refuses_what_is_no_class(labels: list[float]) -> None:
    with pytest.raises(InputError, match="class numbers from 0 to 1"):
        value(LogLoss(), torch.rand(2), torch.tensor(labels))
