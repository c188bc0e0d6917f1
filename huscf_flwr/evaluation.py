"""How good generated images are, judged by classifiers trained on real or generated images."""

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from huscf_flwr.batches import LabelledImages, to_unit
from huscf_flwr.generator import Generator

_BATCH = 100
_LEARNING_RATE = 2e-3


class Classifier(nn.Module):
    """A small convolutional classifier for any image size of at least 8."""

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        size = image_size // 4
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * size * size, 64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, C, H, W) in [-1, 1]."""
        out: Tensor = self.layers(images)
        return out

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities (n, num_classes)."""
        self.eval()
        return torch.cat([self(part).softmax(dim=1) for part in images.split(1000)])


def train_classifier(
    images: Tensor, labels: Tensor, num_classes: int, *, steps: int, seed: int
) -> Classifier:
    """Train a classifier with Adam and a learning rate that falls to zero.

    Parameters
    ----------
    images: float32 (n, C, H, W) in [-1, 1].
    labels: int64 (n,).
    num_classes: number of outputs.
    steps: batches of 100 images, drawn in shuffled epochs.
    seed: of initial parameters, order and dropout.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        classifier = Classifier(images.shape[2], images.shape[1], num_classes).train()
        optimiser = torch.optim.Adam(classifier.parameters(), _LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < min(_BATCH, len(labels)):
                order = torch.cat([order, torch.randperm(len(labels))])
            chosen, order = order[:_BATCH], order[_BATCH:]
            optimiser.zero_grad()
            cross_entropy(classifier(images[chosen]), labels[chosen]).backward()
            optimiser.step()
            schedule.step()
    return classifier


def image_score(probabilities: Tensor) -> float:
    """exp of the mean KL(p(y|x) || p(y)): 1 for blurs or one class, at most the number of classes.

    Parameters
    ----------
    probabilities: p(y|x) of n generated images under a classifier of real ones, (n, classes).
    """
    p = probabilities.double().clamp_min(1e-12)
    marginal = p.mean(dim=0, keepdim=True)
    return float((p * (p.log() - marginal.log())).sum(dim=1).mean().exp())


def real_classifier(train: LabelledImages, num_classes: int, seed: int) -> Classifier:
    """The classifier of a domain, trained on its real training images."""
    images = to_unit(train.images)
    return train_classifier(images, train.labels, num_classes, steps=400, seed=seed)


def accuracy(classifier: Classifier, test: LabelledImages) -> float:
    """Share of held-out real images that the classifier gets right."""
    predicted = classifier.predict(to_unit(test.images)).argmax(dim=1)
    return float((predicted == test.labels).float().mean())


def utility(generator: Generator, test: LabelledImages, *, count: int, seed: int) -> float:
    """Accuracy on real held-out images of a classifier trained on generated images only."""
    images, labels = generator.sample(count, seed=seed)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    classifier = train_classifier(
        images[shuffled], labels[shuffled], generator.spec.num_classes, steps=600, seed=seed
    )
    return accuracy(classifier, test)


def cluster_recovery(true_domains: list[str], clusters: list[int]) -> float:
    """Adjusted Rand index of the clusters against the clients' true domains; 1 is perfect."""
    return float(adjusted_rand_score(true_domains, clusters))
