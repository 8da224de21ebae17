"""Which MXFP4 MoE kernels vLLM takes on the arch, asked of its own code. Computes nothing.

    python selection.py --arch sm121

For releases that choose in get_mxfp4_backend() (0.13 to 0.18). The device is stood in for: the
platform is told to be the arch, so this runs without a GPU and says nothing about the kernels.
Fails when VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8_CUTLASS=1 is not honoured on SM12x, and when the
choice without it is another than Marlin, which upstream takes there.
"""

import os

import _check


def chosen(capability, asked):
    """The backend's name for that device."""
    os.environ["VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8_CUTLASS"] = "1" if asked else "0"
    from vllm.model_executor.layers.quantization import mxfp4

    class Device(type(mxfp4.current_platform)):
        @classmethod
        def get_device_capability(cls, device_id=0):
            from vllm.platforms.interface import DeviceCapability

            return DeviceCapability(*capability)

        def is_cuda(self):
            return True

    real, has = mxfp4.current_platform, mxfp4.has_flashinfer
    mxfp4.current_platform, mxfp4.has_flashinfer = Device(), lambda: True
    try:
        return mxfp4.get_mxfp4_backend(False).name
    finally:
        mxfp4.current_platform, mxfp4.has_flashinfer = real, has


def check(options):
    capability = _check.ARCHS[options.arch][0]
    try:
        from vllm.model_executor.layers.quantization.mxfp4 import get_mxfp4_backend  # noqa: F401
    except ImportError as error:
        raise _check.NotRun(
            f"this release chooses elsewhere, or does not import: {error}"
        ) from error
    if capability[0] != 12:
        raise _check.NotRun(f"nothing is patched for {options.arch}")
    figures = {"asked": chosen(capability, True), "not_asked": chosen(capability, False)}
    if figures["asked"] != "SM100_FI_MXFP4_MXFP8_CUTLASS":
        raise _check.Failed(f"asked for CUTLASS, got {figures['asked']}", **figures)
    if figures["not_asked"] != "MARLIN":
        raise _check.Failed(f"nothing asked for, got {figures['not_asked']}", **figures)
    return "the request for CUTLASS is honoured, and without it Marlin serves", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
