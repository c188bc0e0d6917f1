"""Cluster recovery: whether clients with the same kind of images found each other."""

from sklearn.metrics import adjusted_rand_score


def cluster_recovery(true_domains: list[str], clusters: list[int]) -> float:
    """Adjusted Rand index of the clusters against the clients' true domains; 1 is perfect."""
    return float(adjusted_rand_score(true_domains, clusters))
