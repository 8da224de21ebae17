"""Checks of the NVFP4 KV cache conversions that patches/trtllm adds: host and GPU, bit for bit.

Needs numpy and a compiler and nothing else of the tests or of stackpatch, so that
`scripts/nvfp4-gpu` runs on a machine that has only these.
"""
