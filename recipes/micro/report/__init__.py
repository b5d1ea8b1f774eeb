"""Figures and tables of evaluated micro models, and the release of one."""
