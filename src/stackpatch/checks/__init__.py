"""What we know about a result: which GPU code it holds, whether it computes.

Checks report; they never repair.
"""
