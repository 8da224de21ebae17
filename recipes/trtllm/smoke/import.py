"""TensorRT-LLM imports, and has the FlashInfer that it asks for.

    python import.py --arch sm121

Fails when the import fails, when the package's own version is another than its metadata says, and
when FlashInfer is of another release than the one in TensorRT-LLM's requirements. The import itself
needs CUDA's libraries; without them that is what is said.
"""

import importlib.metadata
import sys

import _check


def check(options):
    try:
        importlib.metadata.version("tensorrt_llm")
    except importlib.metadata.PackageNotFoundError as error:
        raise _check.NotRun(f"tensorrt_llm is not installed ({sys.executable})") from error
    try:
        import tensorrt_llm
    except ImportError as error:
        if "libcuda" in str(error) or "libnv" in str(error):
            raise _check.NotRun(f"import tensorrt_llm: {error}") from error
        raise _check.Failed(f"import tensorrt_llm: {error} ({sys.executable})") from error
    figures = _check.imported(tensorrt_llm, "tensorrt_llm")
    _check.flashinfer_as_asked_for("tensorrt_llm", figures)
    return f"tensorrt_llm {figures['version']}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
