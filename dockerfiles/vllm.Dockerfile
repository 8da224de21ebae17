# vLLM from patched sources: the wheel is compiled in a development image with torch, and put into
# the image that has the released one. docs/containers.md says what each argument is. Where a series
# changes Python files only, `stackpatch build --engine overlay` needs none of this.
#
# The context has source/ (the patched files and their digests) and tools/. Upstream's sources and
# those that its CMake files fetch come over the network: build with `--network host` or `default`.
# Secrets, all optional: `ca` (certificates of a proxy that inspects TLS), `pip` (a pip.conf with the
# package index, credentials included) and `git` (a gitconfig that names mirrors).
ARG BASE
ARG DEVEL=${BASE}
FROM ${DEVEL} AS wheel

ARG GIT
ARG COMMIT
ARG VERSION
# With CUDA 13 plain `12.0`: it becomes 12.0f, which sm120 and sm121 run; torch refuses an `f`.
ARG TORCH_CUDA_ARCH_LIST
# What setuptools needs is in the development image, or named here, relative to the sources.
ARG BUILD_REQUIREMENTS=""
ARG JOBS=0
ARG PYTHON=python3
ARG SOURCE_DATE_EPOCH

USER 0
SHELL ["/bin/sh", "-euc"]
RUN --mount=type=bind,source=.,target=/mnt \
    --mount=type=secret,id=ca,required=false \
    --mount=type=secret,id=git,required=false \
    if [ -e /run/secrets/ca ]; then \
      export GIT_SSL_CAINFO=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; \
    fi; \
    if [ -e /run/secrets/git ]; then export GIT_CONFIG_GLOBAL=/run/secrets/git; fi; \
    "${PYTHON}" /mnt/tools/source.py --git "${GIT}" --commit "${COMMIT}" \
      --patched /mnt/source --to /src/upstream

RUN --mount=type=cache,id=stackpatch-vllm-ccache,target=/root/.cache/ccache \
    --mount=type=secret,id=ca,required=false \
    --mount=type=secret,id=git,required=false \
    --mount=type=secret,id=pip,required=false \
    cd /src/upstream; \
    if [ -e /run/secrets/ca ]; then \
      export PIP_CERT=/run/secrets/ca REQUESTS_CA_BUNDLE=/run/secrets/ca \
        SSL_CERT_FILE=/run/secrets/ca CURL_CA_BUNDLE=/run/secrets/ca \
        GIT_SSL_CAINFO=/run/secrets/ca; \
    fi; \
    if [ -e /run/secrets/git ]; then export GIT_CONFIG_GLOBAL=/run/secrets/git; fi; \
    if [ -e /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi; \
    export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1; \
    if [ -n "${BUILD_REQUIREMENTS}" ]; then \
      "${PYTHON}" -m pip install -r "${BUILD_REQUIREMENTS}"; \
    fi; \
    jobs="${JOBS}"; \
    if [ "${jobs}" = 0 ]; then jobs=$(nproc); fi; \
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH}" MAX_JOBS="${jobs}" VLLM_TARGET_DEVICE=cuda \
      TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST}" VLLM_VERSION_OVERRIDE="${VERSION}" \
      SETUPTOOLS_SCM_PRETEND_VERSION="${VERSION}" \
      "${PYTHON}" -m pip wheel --no-deps --no-build-isolation --wheel-dir /src/wheel .

# The patched wheels of the stacks that this one stands on, if there are any: the build has made them.
RUN --mount=type=bind,source=.,target=/mnt \
    if [ -d /mnt/wheel ]; then cp /mnt/wheel/*.whl /src/wheel/; fi

FROM ${BASE} AS image

ARG DISTRIBUTION=vllm
ARG PACKAGE=vllm
ARG VERSION
ARG ALSO=""
# FlashInfer's prebuilt modules hide no source of vLLM's; named where FlashInfer is patched too.
ARG SHADOWED_BY=""
ARG FLASHINFER_CUDA_ARCH_LIST
ARG PYTHON=python3

USER 0
RUN --mount=type=bind,source=.,target=/mnt \
    --mount=type=bind,from=wheel,source=/src/wheel,target=/media \
    PYTHONDONTWRITEBYTECODE=1 "${PYTHON}" /mnt/tools/install.py \
      --wheels /media --distribution "${DISTRIBUTION}" --package "${PACKAGE}" \
      --version "${VERSION}" --also "${ALSO}" --shadows "${SHADOWED_BY}" --user stackpatch:10001 \
      --caches "/root/.cache/vllm /root/.cache/flashinfer /root/.triton/cache /root/.cache/tvm-ffi"

ENV FLASHINFER_CUDA_ARCH_LIST=${FLASHINFER_CUDA_ARCH_LIST} \
    HOME=/home/stackpatch \
    STACKPATCH_PYTHON=${PYTHON}
WORKDIR /home/stackpatch
USER 10001:10001
EXPOSE 8000
# The server answers /health without running the model. Loading a model takes minutes.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30m --retries=3 \
    CMD "${STACKPATCH_PYTHON}" -c "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/health', timeout=8)"
LABEL org.opencontainers.image.title="vllm" \
      org.opencontainers.image.version="${VERSION}"
