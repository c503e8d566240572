"""Metrics by name and their conversion for a backend."""

import pickle
import subprocess
import sys

import pytest
import torch

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import metrics as named
from zoo.orca.learn.metrics import AUC, MAE, MSE, Accuracy, BinaryAccuracy, F1Score, Metric
from zoo.orca.learn.pytorch import pytorch_metrics

METRICS = sorted(set(named.__all__) - {"Metric"})

BIGDL_KEYS = {
    "AUC": "AucScore",
    "Accuracy": "Top1Accuracy",
    "BinaryAccuracy": "Top1Accuracy",
    "CategoricalAccuracy": "Top1Accuracy",
    "MAE": "MAE",
    "MSE": "MSE",
    "SparseCategoricalAccuracy": "Top1Accuracy",
    "Top5Accuracy": "Top5Accuracy",
}


class Bias:
    """The protocol and nothing else: the mean of prediction minus target."""

    def __init__(self) -> None:
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        self.seen += torch.tensor([(preds - targets).sum(), targets.numel()], dtype=torch.float64)

    def compute(self) -> torch.Tensor:
        return self.seen[0] / self.seen[1]

    def state(self) -> torch.Tensor:
        return self.seen.clone()

    def load_state(self, vector: torch.Tensor) -> None:
        self.seen = vector.clone()

    def reset(self) -> None:
        self.seen = torch.zeros(2, dtype=torch.float64)


def test_import_loads_no_framework() -> None:
    code = (
        "import sys, zoo.orca.learn.metrics as m; m.AUC(); m.Accuracy();"
        "print(sorted({'torch', 'tensorflow', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", METRICS)
def test_torch_key_is_class_name(name: str) -> None:
    converted = Metric.convert_metrics_dict(getattr(named, name)(), "pytorch")
    assert {key: type(metric) for key, metric in converted.items()} == {
        name: getattr(pytorch_metrics, name)
    }


@pytest.mark.parametrize("backend", ["bigdl", "tf"])
@pytest.mark.parametrize("name", sorted(BIGDL_KEYS))
def test_bigdl_key(name: str, backend: str) -> None:
    converted = Metric.convert_metrics_dict([getattr(named, name)()], backend)
    assert {key: type(metric) for key, metric in converted.items()} == {
        BIGDL_KEYS[name]: getattr(pytorch_metrics, name)
    }


@pytest.mark.parametrize("name", sorted(set(METRICS) - set(BIGDL_KEYS)))
def test_bigdl_lacks(name: str) -> None:
    with pytest.raises(NotImplementedError, match=name):
        Metric.convert_metrics_list([getattr(named, name)()], "bigdl")


def test_default_backend_is_bigdl() -> None:
    assert list(Metric.convert_metrics_dict(AUC())) == ["AucScore"]


def test_none_gives_nothing() -> None:
    assert Metric.convert_metrics_list(None, "pytorch") is None
    assert Metric.convert_metrics_dict(None, "pytorch") == {}


def test_list_keeps_order() -> None:
    converted = Metric.convert_metrics_list([MSE(), Accuracy(), MAE()], "pytorch")
    assert converted is not None
    assert [type(metric).__name__ for metric in converted] == ["MSE", "Accuracy", "MAE"]


def test_single_metric_and_tuple() -> None:
    assert len(Metric.convert_metrics_list(MAE(), "pytorch") or []) == 1
    assert list(Metric.convert_metrics_dict((MAE(), MSE()), "pytorch")) == ["MAE", "MSE"]


def test_each_conversion_is_fresh() -> None:
    metric = MAE()
    first = Metric.convert_metrics_dict(metric, "pytorch")["MAE"]
    first(torch.ones(2), torch.zeros(2))
    assert Metric.convert_metrics_dict(metric, "pytorch")["MAE"].state().tolist() == [0, 0]


@pytest.mark.parametrize("backend", ["bigdl", "pytorch", "tf"])
@pytest.mark.parametrize("convert", [Metric.convert_metrics_list, Metric.convert_metrics_dict])
@pytest.mark.parametrize("wrong", ["accuracy", ["accuracy"], [MAE(), "accuracy"]])
def test_text_is_no_metric(convert, wrong, backend) -> None:
    with pytest.raises(ValueError, match="Only orca metrics are supported, but get str"):
        convert(wrong, backend)


@pytest.mark.parametrize("wrong", [MAE, Bias])
def test_class_is_no_metric(wrong: type) -> None:
    with pytest.raises(InputError, match="but get type; pass instances"):
        Metric.convert_metrics_dict([wrong], "pytorch")


@pytest.mark.parametrize("backend", ["keras", "", None])
def test_unknown_backend(backend: str) -> None:
    with pytest.raises(ValueError, match="bigdl, mxnet, pytorch, tf"):
        Metric.convert_metrics_list([MAE()], backend)


def test_mxnet_is_not_there_yet() -> None:
    with pytest.raises(NotYetError, match="mxnet"):
        MAE().get_metric("mxnet")


def test_same_metric_twice() -> None:
    with pytest.raises(InputError, match="two under 'AUC'"):
        Metric.convert_metrics_dict([AUC(), AUC(threshold_num=50)], "pytorch")


def test_same_bigdl_key_twice() -> None:
    with pytest.raises(InputError, match="two under 'Top1Accuracy'"):
        Metric.convert_metrics_list([Accuracy(), BinaryAccuracy()], "bigdl")


def test_settings_reach_torch() -> None:
    metric = F1Score("micro", threshold=0.25).get_metric("pytorch")
    metric(torch.tensor([0.3, 0.1]), torch.tensor([1, 1]))
    assert metric.compute() == 0.5


def test_auc_needs_two_thresholds() -> None:
    with pytest.raises(InputError, match="threshold_num of 2 or more; received 1"):
        AUC(threshold_num=1)


def test_one_based_labels_are_not_for_torch() -> None:
    with pytest.raises(ValueError, match="zero_based_label=False"):
        Accuracy(zero_based_label=False).get_metric("pytorch")


def test_one_based_labels_in_bigdl() -> None:
    metric = Accuracy(zero_based_label=False).get_metric("bigdl")
    metric(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([2, 2]))
    assert metric.compute() == 0.5


def test_own_named_metric() -> None:
    class MeanBias(Metric):
        def get_pytorch_metric(self) -> Bias:
            return Bias()

    assert isinstance(Metric.convert_metrics_dict(MeanBias(), "pytorch")["MeanBias"], Bias)


def test_own_named_metric_without_computation() -> None:
    class Nothing(Metric):
        pass

    with pytest.raises(NotYetError, match="Override get_pytorch_metric"):
        Nothing().get_metric("pytorch")


def test_own_torch_metric_starts_empty() -> None:
    used = Bias()
    used(torch.ones(3), torch.zeros(3))
    converted = Metric.convert_metrics_dict([used, MAE()], "pytorch")
    assert converted["Bias"].state().tolist() == [0, 0]
    assert used.compute() == 1


def test_own_torch_metric_is_not_for_bigdl() -> None:
    with pytest.raises(InputError, match="but get Bias"):
        Metric.convert_metrics_dict([Bias()], "bigdl")


@pytest.mark.parametrize("name", METRICS)
def test_names_travel(name: str) -> None:
    restored = pickle.loads(pickle.dumps(getattr(named, name)()))
    assert restored.get_name() == name
