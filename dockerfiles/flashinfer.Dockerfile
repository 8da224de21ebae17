# FlashInfer with the patched wheel, on an image that has the released one.
# docs/containers.md says what each argument is; `stackpatch build --engine buildx` gives them all.
#
# The context has wheel/ (the patched wheels) and tools/. No step needs a network.
ARG BASE
FROM ${BASE} AS image

ARG DISTRIBUTION=flashinfer-python
ARG PACKAGE=flashinfer
ARG VERSION
# Other patched wheels in wheel/, NAME=VERSION parted by blanks.
ARG ALSO=""
# Prebuilt modules of these are loaded before a patched source is looked at.
ARG SHADOWED_BY="flashinfer-jit-cache"
# One entry, or several with one space between them.
ARG FLASHINFER_CUDA_ARCH_LIST
ARG PYTHON=python3

USER 0
RUN --mount=type=bind,source=.,target=/mnt \
    PYTHONDONTWRITEBYTECODE=1 "${PYTHON}" /mnt/tools/install.py \
      --wheels /mnt/wheel --distribution "${DISTRIBUTION}" --package "${PACKAGE}" \
      --version "${VERSION}" --also "${ALSO}" --shadows "${SHADOWED_BY}" --user stackpatch:10001 \
      --caches "/root/.cache/flashinfer /root/.triton/cache /root/.cache/tvm-ffi"

ENV FLASHINFER_CUDA_ARCH_LIST=${FLASHINFER_CUDA_ARCH_LIST} \
    HOME=/home/stackpatch \
    STACKPATCH_PYTHON=${PYTHON}
WORKDIR /home/stackpatch
USER 10001:10001
# A library: what can be told cheaply is that it is there. No GPU is touched.
HEALTHCHECK --interval=5m --timeout=10s --start-period=10s --retries=2 \
    CMD "${STACKPATCH_PYTHON}" -c "import importlib.util as u; assert u.find_spec('flashinfer')"
LABEL org.opencontainers.image.title="flashinfer" \
      org.opencontainers.image.version="${VERSION}"
