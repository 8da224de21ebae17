"""An NVFP4 KV cache becomes FP8 on SM12x, whoever asked for it, and stays elsewhere.

    python kv_cache.py --arch sm121

Asks validate_and_set_kv_cache_quant() of the installed package, with a device that is stood in for:
it needs no GPU of the arch and says nothing about any kernel. Fails when the setting that comes out
is another than it should be.
"""

import types

import _check


def taken(module, utils, capability, asked, checkpoint):
    """The KV cache's algorithm after the check, as the package would load a model."""
    quant = types.SimpleNamespace(kv_cache_quant_algo=checkpoint)
    real = utils.get_sm_version
    utils.get_sm_version = lambda: capability[0] * 10 + capability[1]
    try:
        module.validate_and_set_kv_cache_quant(types.SimpleNamespace(quant_config=quant), asked)
    finally:
        utils.get_sm_version = real
    return None if quant.kv_cache_quant_algo is None else str(quant.kv_cache_quant_algo)


def check(options):
    try:
        import tensorrt_llm._utils as utils
        from tensorrt_llm._torch.pyexecutor import model_loader
    except ImportError as error:
        raise _check.NotRun(f"tensorrt_llm cannot be imported here: {error}") from error
    capability = _check.ARCHS[options.arch][0]
    falls = "FP8" if capability[0] == 12 else "NVFP4"
    figures = {
        "nvfp4": taken(model_loader, utils, capability, "nvfp4", None),
        "checkpoint": taken(model_loader, utils, capability, "auto", "NVFP4"),
        "both": taken(model_loader, utils, capability, "nvfp4", "NVFP4"),
        "fp8": taken(model_loader, utils, capability, "fp8", None),
        "nothing": taken(model_loader, utils, capability, "auto", None),
    }
    wanted = dict.fromkeys(("nvfp4", "checkpoint", "both"), falls) | {"fp8": "FP8", "nothing": None}
    wrong = [name for name, value in wanted.items() if figures[name] != value]
    if wrong:
        raise _check.Failed(f"asked for {wrong[0]}, took {figures[wrong[0]]}", **figures)
    return f"an NVFP4 KV cache becomes {falls} on {options.arch}", figures


if __name__ == "__main__":
    _check.main(check, __doc__)
