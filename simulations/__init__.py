"""Runs on one machine: the in-process engine that needs no Ray, comparisons of scenarios, and the
benchmark. Beside them the scenarios as run configs, and what the paper's authors published.
"""
