"""Profiling of runs: time, memory, parameters and operations."""
