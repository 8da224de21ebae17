# TensorRT-LLM from patched sources: the wheel is compiled in a development image, and put into the
# image that has the released one. docs/containers.md says what each argument is.
#
# The context has source/ (the patched files and their digests) and tools/. Upstream's sources,
# submodules and large files, and what the build asks of conan and pip, come over the network:
# build with `--network host` or `default`. Secrets, all optional: `ca` (certificates of a proxy
# that inspects TLS), `pip` (a pip.conf with the package index, credentials included) and `git` (a
# gitconfig that names mirrors).
ARG BASE
ARG DEVEL=${BASE}
FROM ${DEVEL} AS wheel

ARG GIT
ARG COMMIT
ARG VERSION
# `120-real` serves sm120 and sm121: TensorRT-LLM makes it the family target.
ARG CUDA_ARCHS
# `no` leaves the submodules of the sources out.
ARG SUBMODULES=yes
# git-lfs patterns: prebuilt libraries and cubins that the sources keep outside git.
ARG LFS="*"
ARG JOBS=0
ARG BUILD_OPTIONS=""
ARG BUILD_SCRIPT=scripts/build_wheel.py
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
      --patched /mnt/source --submodules "${SUBMODULES}" --lfs "${LFS}" --to /src/upstream

# --clean: generated attention kernels are made anew only then. Compilers answer from ccache.
RUN --mount=type=cache,id=stackpatch-trtllm-ccache,target=/root/.cache/ccache \
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
    jobs="${JOBS}"; \
    if [ "${jobs}" = 0 ]; then jobs=$(nproc); fi; \
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH}" "${PYTHON}" "${BUILD_SCRIPT}" --clean --use_ccache \
      --cuda_architectures "${CUDA_ARCHS}" --job_count "${jobs}" --yes --skip-stubs \
      --version-override "${VERSION}" --dist_dir /src/wheel ${BUILD_OPTIONS}

# The patched wheels of the stacks that this one stands on, if there are any: the build has made them.
RUN --mount=type=bind,source=.,target=/mnt \
    if [ -d /mnt/wheel ]; then cp /mnt/wheel/*.whl /src/wheel/; fi

FROM ${BASE} AS image

ARG DISTRIBUTION=tensorrt-llm
ARG PACKAGE=tensorrt_llm
ARG VERSION
ARG ALSO=""
ARG SHADOWED_BY=""
ARG PYTHON=python3

USER 0
RUN --mount=type=bind,source=.,target=/mnt \
    --mount=type=bind,from=wheel,source=/src/wheel,target=/media \
    PYTHONDONTWRITEBYTECODE=1 "${PYTHON}" /mnt/tools/install.py \
      --wheels /media --distribution "${DISTRIBUTION}" --package "${PACKAGE}" \
      --version "${VERSION}" --also "${ALSO}" --shadows "${SHADOWED_BY}" --user stackpatch:10001 \
      --caches "/root/.tensorrt_llm /root/.cache/flashinfer /root/.triton/cache /root/.cache/tvm-ffi"

ENV HOME=/home/stackpatch \
    STACKPATCH_PYTHON=${PYTHON}
WORKDIR /home/stackpatch
USER 10001:10001
EXPOSE 8000
# trtllm-serve answers /health without running the model. Loading a model takes minutes.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30m --retries=3 \
    CMD "${STACKPATCH_PYTHON}" -c "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/health', timeout=8)"
LABEL org.opencontainers.image.title="tensorrt-llm" \
      org.opencontainers.image.version="${VERSION}"
