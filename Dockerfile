# selfhvd-tta with CUDA's runtime; see docs/guides/containers.md.
#   docker build -t sharpen .
#   docker run --rm --gpus all -v "$PWD:/work" -v sharpen-weights:/cache sharpen deblur shaky.mp4 -o sharp.mp4

# The driver comes from the host; cuDNN and CUDA's other libraries are in PyTorch's wheels.
ARG BASE=nvidia/cuda:12.6.3-base-ubuntu24.04

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# The dependencies first and alone: a change of the code does not install them anew.
COPY pyproject.toml ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['report']))" > requirements.txt \
 && python3 -m venv /opt/selfhvd-tta \
 && /opt/selfhvd-tta/bin/pip install --no-cache-dir -r requirements.txt
COPY README.md LICENSE ./
COPY selfhvd_tta ./selfhvd_tta
COPY weights ./weights
RUN /opt/selfhvd-tta/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && userdel --remove ubuntu \
 && useradd --create-home --uid 1000 sharpener \
 && install -d -m 1777 /cache /work
COPY --from=build /opt/selfhvd-tta /opt/selfhvd-tta
ENV PATH=/opt/selfhvd-tta/bin:$PATH \
    SELFHVD_TTA_CACHE=/cache \
    HF_HOME=/cache/hub \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /cache
WORKDIR /work
USER sharpener
ENTRYPOINT ["selfhvd-tta"]
CMD ["--help"]
