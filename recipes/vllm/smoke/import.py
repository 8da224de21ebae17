"""vLLM imports, says the version that is installed, and has the FlashInfer that it asks for.

    python import.py --arch sm121

Fails when the import fails, when the package's own version is another than its metadata says, and
when FlashInfer is of another release than the one in vLLM's requirements. Needs no GPU.
"""

import importlib.metadata
import os
import re
import sys

import _check


def check(options):
    try:
        import vllm
    except ImportError as error:
        raise _check.Failed(f"import vllm: {error} ({sys.executable})") from error
    try:
        installed = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError as error:
        raise _check.Failed(f"no distribution installed {vllm.__file__}") from error
    figures = {"version": installed, "folder": os.path.dirname(vllm.__file__)}
    told = getattr(vllm, "__version__", installed)
    if told != installed:
        raise _check.Failed(f"the distribution is {installed}, the package says {told}", **figures)
    wanted = os.environ.get("SMOKE_VERSION")
    if wanted and wanted != installed:
        raise _check.Failed(f"vllm {installed} is imported, not {wanted}", **figures)
    for text in importlib.metadata.requires("vllm") or ():
        pin = re.match(r"flashinfer[-_]python(?:\[[^]]*\])?\s*==\s*([^\s;]+)", text)
        if pin and "extra ==" not in text:
            figures["asks_for"] = pin[1]
            try:
                figures["flashinfer"] = importlib.metadata.version("flashinfer-python")
            except importlib.metadata.PackageNotFoundError as error:
                raise _check.Failed("flashinfer-python is not installed", **figures) from error
            if figures["flashinfer"].partition("+")[0] != pin[1]:
                raise _check.Failed(
                    f"flashinfer {figures['flashinfer']} is installed, vllm {installed} asks for "
                    f"{pin[1]}",
                    **figures,
                )
    return f"vllm {installed}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
