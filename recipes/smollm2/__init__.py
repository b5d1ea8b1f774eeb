"""SmolLM2-135M-Instruct with the micro model's eyes: composed, tuned in its own words, and asked before and after."""
