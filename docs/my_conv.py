"""A convolutional network learns the digits by feedback alignment: every position of an image is an event."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import metarule as mr
from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.rules.textbook import Delta
from metarule.synapses.adam import Adam

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels))
train, test = torch.utils.data.random_split(data, (1400, 397))

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.AvgPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 4 * 4, 10),
)
optimizer = mr.LocalOptimizer(model, Delta(), credit=FeedbackAlignment(), synapse=Adam(), lr=2e-3)

for _ in range(6):
    for x, y in DataLoader(train, batch_size=32, shuffle=True):
        optimizer.step(x, y)

with torch.no_grad():
    x, y = test[:]
    accuracy = (model(x).argmax(1) == y).float().mean().item()
print(f"feedback alignment through convolutions: {accuracy:.3f} of {len(test)} digits that it never saw")
