"""Figures for Prometheus: what turns took, and what the process counts."""
