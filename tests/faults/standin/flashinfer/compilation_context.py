"""The targets that kernels are compiled for."""

import os


class CompilationContext:
    """`12.1a` in FLASHINFER_CUDA_ARCH_LIST is (12, '1a')."""

    def __init__(self):
        plain = os.environ.get("STANDIN_FAULT") == "plain-target"
        words = os.environ.get("FLASHINFER_CUDA_ARCH_LIST", "").split()
        pairs = [word.split(".") for word in words]
        self.TARGET_CUDA_ARCHS = {
            (int(major), minor.rstrip("af") if plain else minor) for major, minor in pairs
        }
