"""Benchmarks: our commands beside their peers, as ratios in one run on one machine.

A file `bench_NAME.py` has a function `comparisons(work: Path) -> Iterable[Comparison]`; `work` is
a scratch folder that stays from run to run. `python -m bench [NAME…]` runs them.
"""
