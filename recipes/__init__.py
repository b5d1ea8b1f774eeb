"""Recipes: one YAML file for each training run. `lyrics pretrain --config smoke` finds one by its name."""
