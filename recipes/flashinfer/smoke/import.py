"""The package imports, says the version that is installed, and compiles for the arch.

    FLASHINFER_CUDA_ARCH_LIST=12.1a python import.py --arch sm121

Fails when the import fails; when the package's own version is another than its metadata says (a
mix of two releases, or an unpatched file over a patched package); when a companion package
(flashinfer-cubin, flashinfer-jit-cache) is of another release; and when FlashInfer would compile
for another target than the arch's. Up to release 0.6.6 it compiles for plain sm_121 when it is
told `12.1`, and ptxas then refuses FP4. Needs torch, no GPU.
"""

import importlib.metadata
import os
import sys

import _check

COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")


def check(options):
    try:
        import flashinfer
    except ImportError as error:
        raise _check.Failed(
            f"import flashinfer: {error} ({sys.executable})", python=sys.version.split()[0]
        ) from error
    told = flashinfer.__version__
    figures = {
        "python": sys.version.split()[0],
        "folder": os.path.dirname(flashinfer.__file__),
        "version": told,
    }
    for name in ("torch", "apache-tvm-ffi", "triton", "nvidia-cutlass-dsl", *COMPANIONS):
        try:
            figures[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            figures[name] = None
    try:
        installed = importlib.metadata.version("flashinfer-python")
    except importlib.metadata.PackageNotFoundError as error:
        raise _check.Failed(
            f"flashinfer comes from {figures['folder']}, which no distribution installed", **figures
        ) from error
    figures["distribution"] = installed
    if installed != told:
        raise _check.Failed(
            f"the distribution is {installed}, but the imported package calls itself {told}: two "
            f"releases are mixed in {figures['folder']}",
            **figures,
        )
    wanted = os.environ.get("SMOKE_VERSION")
    if wanted and wanted != told:
        raise _check.Failed(f"flashinfer {told} is imported, not {wanted}", **figures)
    release = told.partition("+")[0]
    for name in COMPANIONS:
        if figures[name] and figures[name].partition("+")[0] != release:
            raise _check.Failed(
                f"{name} {figures[name]} is installed beside flashinfer {told}", **figures
            )
    return _targets(options, figures)


def _targets(options, figures):
    """Hold the targets that FlashInfer would compile for against the arch."""
    from flashinfer.compilation_context import CompilationContext

    wanted = _check.target(options.arch)
    if "FLASHINFER_CUDA_ARCH_LIST" in os.environ:
        figures["FLASHINFER_CUDA_ARCH_LIST"] = os.environ["FLASHINFER_CUDA_ARCH_LIST"]
    found = sorted(f"{major}{minor}" for major, minor in CompilationContext().TARGET_CUDA_ARCHS)
    figures["targets"] = [f"sm_{name}" for name in found]
    if not found:
        return "imported; no GPU and no FLASHINFER_CUDA_ARCH_LIST, so it has no target yet", figures
    # Code for the family runs on each of its members; code for the plain target lacks FP4.
    if wanted not in found and wanted[:-1] + "f" not in found:
        raise _check.Failed(
            f"FlashInfer would compile for {', '.join(figures['targets'])}, not for sm_{wanted}",
            **figures,
        )
    return f"flashinfer {figures['version']}, compiles for {', '.join(figures['targets'])}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
