"""Transformers' own test suites, run against this package.

The mixins ship in the source distribution of Transformers. `make test-slow` fetches it, unpacks it and says where, in
the environment variable `TRANSFORMERS_SUITE`; without it nothing here is collected. Nothing of it is committed.
"""
