"""Recipes: a YAML file for every training run. `lyrics pretrain --config smoke` finds one by its name."""
