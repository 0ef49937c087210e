# segserve's image, for any machine and as a SageMaker container. docs/container.md has the details.
#
#   docker build -t segserve .                                                        # CPU
#   docker build -t segserve:gpu --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .              # NVIDIA GPUs
#   docker run --rm -p 127.0.0.1:8080:8080 --stop-timeout 45 segserve

# Any Debian or Ubuntu whose Python is 3.11 or 3.12. The wheels bring CUDA's libraries along; the base of a GPU image
# tells the container runtime which drivers will do.
ARG BASE=debian:bookworm-slim
# Only detectron2's CUDA operators need another one: the base's "devel" sibling, which has nvcc.
ARG BUILD_BASE=${BASE}

# --- Python, which all stages share ---
FROM ${BASE} AS python
# procps for `kill`, with which TorchServe ends the workers of a model that is unregistered or scaled down.
# Not pinned: a distribution keeps a package's newest security fix only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates procps python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/*.log

# --- What is installed, without segserve itself: a change of its code leaves the large layer alone ---
FROM python AS requirements
WORKDIR /build
COPY pyproject.toml .
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = project["optional-dependencies"]; \
print(*project["dependencies"], *extras["serve"], *extras["s3"], sep="\n")' > requirements.txt

FROM ${BUILD_BASE} AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv
# pip lives outside of the environment that it fills, and stays behind.
ENV PIP_PYTHON=/opt/venv/bin/python \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# Where torch's wheels come from: PyTorch's for CPUs by default, 4 GB smaller than those with CUDA. Empty: the usual
# package index alone, whose torch is built for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
COPY --from=requirements /build/requirements.txt .
RUN /opt/pip/bin/pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement requirements.txt
# The engine detectron2 of mask_rcnn, compiled here. FORCE_CUDA=1 and an architecture list compile for GPUs.
ARG WITH_DETECTRON2=false
ARG DETECTRON2="detectron2 @ git+https://github.com/facebookresearch/detectron2.git"
ARG FORCE_CUDA=0
ARG TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;8.9;9.0"
# hadolint ignore=DL3008,DL3013
RUN if [ "${WITH_DETECTRON2}" = true ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends g++ git python3-dev \
        && rm -rf /var/lib/apt/lists/* \
        && /opt/pip/bin/pip install "setuptools<81" wheel ninja \
        && FORCE_CUDA="${FORCE_CUDA}" TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST}" PATH="/opt/venv/bin:${PATH}" \
            /opt/pip/bin/pip install --no-build-isolation "${DETECTRON2}"; \
    fi

# --- segserve, and the archives of its demo models ---
FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/pip/bin/pip install --no-deps --prefix /opt/package . \
    && cp -R /opt/package/. /opt/venv/
COPY handlers handlers
COPY weights/demo weights/demo
RUN /opt/venv/bin/segserve archive demo --out model_store

# --- The image ---
FROM python AS image
RUN groupadd --gid 10001 segserve \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin segserve
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/package /opt/venv
WORKDIR /opt/segserve
COPY config.properties LICENSE ./
# For `docker run IMAGE archive …`, which packs weights of one's own.
COPY handlers handlers
COPY --from=package /build/model_store model_store
# HOME and TMPDIR: the only place that has to be writable. The numbers of threads follow the container's processors
# (its quota included) and are set by `segserve serve` for each worker; OMP_NUM_THREADS, if given, wins.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    TMPDIR=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    SEGSERVE_HOST=0.0.0.0 \
    SEGSERVE_MODEL_STORE=/opt/ml/model:/opt/segserve/model_store \
    SEGSERVE_LOG_DIR=/tmp/logs
EXPOSE 8080
STOPSIGNAL SIGTERM
# Any user will do: nothing is written outside of /tmp. SageMaker recommends root (0:0), which its artifacts may need.
ARG RUN_AS=10001:10001
USER ${RUN_AS}
# Unhealthy until every model is ready. A port that was given as an option is not known here: use the variables.
HEALTHCHECK --interval=15s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python3", "-S", "-c", "import os, sys; from http.client import HTTPConnection; port = os.environ.get('SAGEMAKER_BIND_TO_PORT') or os.environ.get('SEGSERVE_PORT') or '8080'; asked = HTTPConnection('127.0.0.1', int(port), timeout=9); asked.request('GET', '/ping'); sys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["segserve"]
CMD ["serve"]
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="segserve" \
      org.opencontainers.image.description="Segmentation models behind an HTTP API and SageMaker's hosting contract" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true"
