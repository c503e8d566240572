"""A PyTorch program as it is, on a cluster: LeNet-5 learns digits, and its loaders are shared out.

    python examples/pytorch_quickstart.py

Functions make model, optimizer and loaders; each rank calls them. `batch_size` is that of a step
over all ranks, and each row is used once an epoch.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.pytorch import Estimator


class LeNet(nn.Module):
    """LeNet-5, for images of 32 x 32."""

    def __init__(self):
        super().__init__()
        self.seen = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.told = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )

    def forward(self, images):
        """A score for each digit."""
        return self.told(self.seen(images))


def digits(train):
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 1, 8, 8) / 16, np.ones((4, 4), np.float32))
    chosen = (np.arange(len(labels)) % 5 != 0) == train
    return TensorDataset(
        torch.tensor(images[chosen], dtype=torch.float32), torch.tensor(labels[chosen])
    )


def model_creator(config):
    torch.manual_seed(0)
    return LeNet()


def optimizer_creator(model, config):
    return torch.optim.Adam(model.parameters(), lr=config["lr"])


def train_loader_creator(config, batch_size):
    return DataLoader(digits(train=True), batch_size=batch_size, shuffle=True)


def test_loader_creator(config, batch_size):
    return DataLoader(digits(train=False), batch_size=batch_size)


if __name__ == "__main__":
    init_orca_context(cluster_mode="local", cores=2)
    est = Estimator.from_torch(
        model=model_creator, optimizer=optimizer_creator, loss=nn.CrossEntropyLoss(),
        metrics=[Accuracy()], config={"lr": 0.002}, workers_per_node=2,
    )  # fmt: skip
    est.fit(
        data=train_loader_creator, epochs=5, batch_size=64, validation_data=test_loader_creator,
    )  # fmt: skip
    for epoch in est.history:
        print(f"Epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}")
    print(f"Accuracy {est.evaluate(data=test_loader_creator, batch_size=64)['Accuracy']:.3f}")
    stop_orca_context()
