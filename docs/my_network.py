"""A network of your own learns the digits by a local rule: an ordinary training loop without backward()."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import metarule as mr

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
train, test = torch.utils.data.random_split(data, (1400, 397))

model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
row = sys.argv[1] if len(sys.argv) > 1 else "feedback_alignment"  # a row of the zoo, or the folder of a run
optimizer = mr.LocalOptimizer.of(model, row)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)

for _ in range(20):
    for x, y in DataLoader(train, batch_size=32, shuffle=True):
        optimizer.step(x, y)
    scheduler.step()

with torch.no_grad():
    x, y = test[:]
    accuracy = (model(x).argmax(1) == y).float().mean().item()
print(f"{row}: {accuracy:.3f} of {len(test)} digits that it never saw")
