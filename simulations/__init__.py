"""Runs on one machine: scenario files, and the in-process engine that needs no Ray."""
