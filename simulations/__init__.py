"""Runs on one machine: the in-process engine that needs no Ray, and the benchmark."""
