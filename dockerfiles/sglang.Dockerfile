# SGLang with the patched wheel, on an image that has the released one, editable installs included.
# docs/containers.md says what each argument is; `stackpatch build --engine buildx` gives them all.
#
# The context has wheel/ (the patched wheels) and tools/. No step needs a network.
ARG BASE
FROM ${BASE} AS image

ARG DISTRIBUTION=sglang
ARG PACKAGE=sglang
ARG VERSION
# Other patched wheels in wheel/, NAME=VERSION parted by blanks.
ARG ALSO=""
# Prebuilt modules of these are loaded before a patched source is looked at.
ARG SHADOWED_BY=""
# For FlashInfer, which SGLang calls: one entry, or several with one space between them.
ARG FLASHINFER_CUDA_ARCH_LIST
ARG PYTHON=python3

USER 0
RUN --mount=type=bind,source=.,target=/mnt \
    PYTHONDONTWRITEBYTECODE=1 "${PYTHON}" /mnt/tools/install.py \
      --wheels /mnt/wheel --distribution "${DISTRIBUTION}" --package "${PACKAGE}" \
      --version "${VERSION}" --also "${ALSO}" --shadows "${SHADOWED_BY}" --user stackpatch:10001 \
      --caches "/root/.cache/sglang /root/.cache/flashinfer /root/.cache/deep_gemm \
                /root/.triton/cache /root/.cache/tvm-ffi"

ENV FLASHINFER_CUDA_ARCH_LIST=${FLASHINFER_CUDA_ARCH_LIST} \
    HOME=/home/stackpatch \
    STACKPATCH_PYTHON=${PYTHON}
WORKDIR /home/stackpatch
USER 10001:10001
EXPOSE 30000
# The server answers /health without running the model. Loading a model takes minutes.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30m --retries=3 \
    CMD "${STACKPATCH_PYTHON}" -c "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '30000') + '/health', timeout=8)"
LABEL org.opencontainers.image.title="sglang" \
      org.opencontainers.image.version="${VERSION}"
