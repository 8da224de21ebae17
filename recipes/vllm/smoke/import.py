"""vLLM imports, says the version that is installed, and has the FlashInfer that it asks for.

    python import.py --arch sm121

Fails when the import fails, when the package's own version is another than its metadata says, and
when FlashInfer is of another release than the one in vLLM's requirements. Needs no GPU.
"""

import sys

import _check


def check(options):
    try:
        import vllm
    except ImportError as error:
        raise _check.Failed(f"import vllm: {error} ({sys.executable})") from error
    figures = _check.imported(vllm, "vllm")
    _check.flashinfer_as_asked_for("vllm", figures)
    return f"vllm {figures['version']}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
