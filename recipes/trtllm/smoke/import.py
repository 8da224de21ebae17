"""TensorRT-LLM imports, and has the FlashInfer that it asks for.

    python import.py --arch sm121

Fails when the import fails, when the package's own version is another than its metadata says, and
when FlashInfer is of another release than the one in TensorRT-LLM's requirements. The import itself
needs CUDA's libraries; without them that is what is said.
"""

import importlib.metadata
import os
import re
import sys

import _check


def check(options):
    try:
        installed = importlib.metadata.version("tensorrt_llm")
    except importlib.metadata.PackageNotFoundError as error:
        raise _check.NotRun(f"tensorrt_llm is not installed ({sys.executable})") from error
    try:
        import tensorrt_llm
    except ImportError as error:
        if "libcuda" in str(error) or "libnv" in str(error):
            raise _check.NotRun(f"import tensorrt_llm: {error}") from error
        raise _check.Failed(f"import tensorrt_llm: {error} ({sys.executable})") from error
    figures = {"version": installed, "folder": os.path.dirname(tensorrt_llm.__file__)}
    told = getattr(tensorrt_llm, "__version__", installed)
    if told != installed:
        raise _check.Failed(f"the distribution is {installed}, the package says {told}", **figures)
    for text in importlib.metadata.requires("tensorrt_llm") or ():
        pin = re.match(r"flashinfer[-_]python(?:\[[^]]*\])?\s*==\s*([^\s;]+)", text)
        if pin and "extra ==" not in text:
            figures["asks_for"] = pin[1]
            try:
                figures["flashinfer"] = importlib.metadata.version("flashinfer-python")
            except importlib.metadata.PackageNotFoundError as error:
                raise _check.Failed("flashinfer-python is not installed", **figures) from error
            if figures["flashinfer"].partition("+")[0] != pin[1]:
                raise _check.Failed(
                    f"flashinfer {figures['flashinfer']} is installed, tensorrt_llm {installed} "
                    f"asks for {pin[1]}",
                    **figures,
                )
    return f"tensorrt_llm {installed}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
