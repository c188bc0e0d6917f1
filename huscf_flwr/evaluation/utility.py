"""Utility: what a classifier trained on generated images only is worth on real ones."""

import numpy as np


def classification_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, macro precision, recall and F1, and false positive rate.

    All but accuracy are means over the classes that occur in `true`. The false positive rate of a
    class is FP / (FP + TN): the share of the other classes' images that are taken for it. What is
    0 / 0 counts as 0.

    Parameters
    ----------
    true, predicted: classes of n images, integers (n,).
    """
    # Here, since it is heavy, and clients load this module for every message.
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    occurring = np.unique(true)
    precision, recall, f1, _ = precision_recall_fscore_support(
        true, predicted, labels=occurring, average="macro", zero_division=0
    )
    wrong = predicted[predicted != true]
    rates = [(wrong == c).sum() / max((true != c).sum(), 1) for c in occurring]
    return {
        "accuracy": float(accuracy_score(true, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "fpr": float(np.mean(rates)),
    }


def confusion_counts(true: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """How many images of each class (rows) are taken for each (columns), 0 to `classes` - 1."""
    from sklearn.metrics import confusion_matrix  # here, since it is heavy

    counts: list[list[int]] = confusion_matrix(true, predicted, labels=range(classes)).tolist()
    return counts
