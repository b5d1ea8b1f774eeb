"""Table and figures of evaluated micro models, and the release of one."""
