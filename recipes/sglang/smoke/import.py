"""SGLang imports, says the version that is installed, and has the FlashInfer that it asks for.

    python import.py --arch sm121

Fails when the import fails, when the package's own version is another than its metadata says, and
when FlashInfer is of another release than the one in SGLang's requirements. Needs no GPU.
"""

import sys

import _check


def check(options):
    try:
        import sglang
    except ImportError as error:
        raise _check.Failed(f"import sglang: {error} ({sys.executable})") from error
    figures = _check.imported(sglang, "sglang")
    _check.flashinfer_as_asked_for("sglang", figures)
    return f"sglang {figures['version']}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
