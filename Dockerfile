# selfhvd-tta for NVIDIA GPUs and CPUs; see docs/guides/containers.md.
#   docker build -t sharpen .
#   docker run --rm --gpus all -v "$PWD:/work" -v sharpen-weights:/cache sharpen deblur shaky.mp4 -o sharp.mp4

# CUDA's libraries are in PyTorch's wheels; the driver comes from the host.
ARG BASE=ubuntu:24.04
# The CUDA release of the wheels; empty for PyTorch without CUDA.
ARG CUDA=13.0
# Where PyTorch is taken from; the default is that of pip.
ARG TORCH=

FROM ${BASE} AS build
ARG CUDA
ARG TORCH
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# Dependencies first: a change of the code does not install them again.
COPY pyproject.toml ./
RUN python3 -m venv /opt/selfhvd-tta \
 && if [ -n "$TORCH" ]; then /opt/selfhvd-tta/bin/pip install --no-cache-dir torch torchvision --index-url "$TORCH"; fi \
 && python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['report']))" > requirements.txt \
 && /opt/selfhvd-tta/bin/pip install --no-cache-dir -r requirements.txt \
 && /opt/selfhvd-tta/bin/python -c "import torch; found = torch.version.cuda or ''; \
assert found == '$CUDA', f'the wheels are of CUDA {found}: build with --build-arg CUDA={found}'"
COPY README.md LICENSE hatch_build.py ./
COPY selfhvd_tta ./selfhvd_tta
COPY weights ./weights
RUN /opt/selfhvd-tta/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
ARG CUDA
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && userdel --remove ubuntu \
 && useradd --create-home --uid 1000 sharpener \
 && install -d -m 1777 /cache /work
COPY --from=build /opt/selfhvd-tta /opt/selfhvd-tta
# NVIDIA's runtime reads the last three: it refuses to start on a driver that is too old for the wheels.
ENV PATH=/opt/selfhvd-tta/bin:$PATH \
    SELFHVD_TTA_CACHE=/cache \
    HF_HOME=/cache/hub \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA=${CUDA:+cuda>=${CUDA}}
VOLUME /cache
WORKDIR /work
USER sharpener
ENTRYPOINT ["selfhvd-tta"]
CMD ["--help"]
