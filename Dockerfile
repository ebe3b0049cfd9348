# One image a service, each with only what that service imports, all on layers they share.
#
#     docker compose build                  the images of the profile chosen in .env
#     docker build --target camera .        one of them
#
# Every third-party package comes from requirements.lock with its hash; scripts/cut_lock.py cuts out of the lock
# what each service needs. Behind mirrors: UV_DEFAULT_INDEX and PIP_INDEX_URL as build arguments, and BASE for a
# base image of your own, with your authority's certificates for example.

ARG BASE=python:3.12-slim-bookworm
# cpu: PyTorch without CUDA, from PyTorch's own index. locked: the very wheels of requirements.lock, CUDA included.
ARG TORCH=cpu


FROM ${BASE} AS base
# HOME: libraries want a place for caches, and /tmp is the one writable place of a read-only container.
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=Agg \
    HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 GRIPWIRE_DATA=/data
# Python's own library comes uncompiled, and a read-only container would compile it anew at every start.
RUN python -m compileall -q -x 'site-packages|/test/|idlelib|lib2to3|tkinter|turtledemo' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
WORKDIR /data
ENTRYPOINT ["gripwire"]


# ---- What only builds. It is lent to the images' own steps and stays in none of them.

FROM ${BASE} AS tools
ARG UV_DEFAULT_INDEX PIP_INDEX_URL
ENV UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_CACHE_DIR=/cache/uv PIP_CACHE_DIR=/cache/pip
WORKDIR /src
COPY requirements*.lock ./
COPY scripts/cut_lock.py scripts/into_image.sh scripts/
COPY scripts/overrides scripts/overrides
RUN --mount=type=cache,target=/cache \
    python scripts/cut_lock.py --package uv > uv.txt \
    && python -m pip install --root-user-action=ignore --no-deps --require-hashes -r uv.txt \
    && mkdir /lend && cp "$(command -v uv)" scripts/into_image.sh /lend/

FROM tools AS cuts
ARG TORCH
COPY pyproject.toml ./
COPY proto/pyproject.toml proto/
COPY services/camera/pyproject.toml services/camera/
COPY services/robot/pyproject.toml services/robot/
COPY services/reward/pyproject.toml services/reward/
COPY services/recorder/pyproject.toml services/recorder/
COPY services/trainer/pyproject.toml services/trainer/
COPY services/sim/pyproject.toml services/sim/
# PyTorch is a layer of its own. The robot goes without.
RUN --mount=type=cache,target=/cache set -e; \
    cut() { name=$1; shift; python scripts/cut_lock.py "$@" > "/lend/$name.txt"; }; \
    cut core proto; \
    cut camera proto services/camera; \
    cut robot proto services/robot --override scripts/overrides/robot.txt; \
    cut reward proto services/reward; \
    cut recorder proto services/recorder --override scripts/overrides/lerobot.txt --without-torch; \
    cut trainer proto services/reward services/trainer --override scripts/overrides/lerobot.txt \
        --without-torch; \
    cut sim proto services/sim; \
    if [ "$TORCH" = cpu ]; then cp requirements-cpu.lock /lend/torch.txt; \
    else cut torch services/recorder services/trainer --only-torch; fi

FROM cuts AS gpu-cuts
RUN --mount=type=cache,target=/cache set -e; \
    cut() { name=$1; shift; \
        python scripts/cut_lock.py --lock requirements-gpu.lock "$@" > "/lend/$name.txt"; }; \
    cut reward-gpu proto services/reward --override scripts/overrides/gpu.txt --also "onnxruntime-gpu[cuda,cudnn]"; \
    cut trainer-gpu proto services/reward services/trainer --override scripts/overrides/gpu.txt \
        --override scripts/overrides/lerobot.txt \
        --also "onnxruntime-gpu[cuda,cudnn]" --without-torch; \
    cut torch services/trainer --only-torch

FROM tools AS wheels
RUN --mount=type=cache,target=/cache set -e; \
    python scripts/cut_lock.py --package hatchling --package editables --package packaging --package pathspec \
        --package pluggy --package trove-classifiers > tools.txt; \
    uv pip install --quiet --system --no-deps --require-hashes -r tools.txt
COPY LICENSE ./
COPY proto proto
COPY services services
RUN for member in proto services/*/; do \
        uv build --quiet --wheel --no-build-isolation --out-dir /wheels "$member" || exit 1; \
    done; cp /lend/* /wheels/


# ---- Layers that several images share: what all need, what looks at pictures, and PyTorch.

FROM base AS core-layer
ARG UV_DEFAULT_INDEX
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh core.txt

FROM core-layer AS picture-layer
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh camera.txt

FROM picture-layer AS torch-layer
ARG TORCH
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache \
    if [ "$TORCH" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi; /mnt/into_image.sh torch.txt

FROM picture-layer AS torch-gpu-layer
RUN --mount=from=gpu-cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh torch.txt


# ---- The images. First the packages of the lock, then our own wheels: these change with every commit.
# $USER: PyTorch asks for the user's name, and one by number alone, as you are, has none in an image.

# Makes keys, keeps the last minutes of the bus.
FROM core-layer AS core
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire
USER 1000:1000
ENV USER=gripwire

FROM picture-layer AS camera
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_camera
USER 1000:1000
ENV USER=gripwire
CMD ["camera", "run"]

FROM picture-layer AS robot
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh robot.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_robot
USER 1000:1000
ENV USER=gripwire
CMD ["robot", "run"]

# The robot's image and the other end of the bench's serial cables (`gripwire sim plug`), nothing else.
FROM robot AS robot-sim
USER root
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire_sim
USER 1000:1000
ENV USER=gripwire

FROM picture-layer AS reward
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh reward.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_reward
USER 1000:1000
ENV USER=gripwire
CMD ["reward", "run"]

FROM torch-layer AS recorder
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh recorder.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_recorder
USER 1000:1000
ENV USER=gripwire
CMD ["recorder", "run"]

FROM torch-layer AS trainer
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh trainer.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_reward gripwire_trainer
USER 1000:1000
ENV USER=gripwire
CMD ["trainer", "run"]

# The bench draws its camera's pictures with Mesa's software OpenGL.
FROM picture-layer AS sim
RUN apt-get update -q && apt-get install -qy --no-install-recommends libegl1 libopengl0 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=from=cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh sim.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_sim
USER 1000:1000
ENV USER=gripwire
CMD ["sim", "run"]


# ---- With an NVIDIA GPU: ONNX Runtime and PyTorch with CUDA (requirements-gpu.lock).

FROM picture-layer AS reward-gpu
RUN --mount=from=gpu-cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh reward-gpu.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_reward
# ONNX Runtime looks for NVIDIA's libraries where the loader does; their wheels put them beside the packages.
ENV LD_LIBRARY_PATH=/usr/local/lib/python3.12/site-packages/nvidia/cu13/lib:/usr/local/lib/python3.12/site-packages/nvidia/cudnn/lib
USER 1000:1000
ENV USER=gripwire
CMD ["reward", "run"]

FROM torch-gpu-layer AS trainer-gpu
RUN --mount=from=gpu-cuts,source=/lend,target=/mnt --mount=type=cache,target=/cache /mnt/into_image.sh trainer-gpu.txt
RUN --mount=from=wheels,source=/wheels,target=/mnt UV_NO_CACHE=1 /mnt/into_image.sh gripwire gripwire_reward gripwire_trainer
ENV LD_LIBRARY_PATH=/usr/local/lib/python3.12/site-packages/nvidia/cu13/lib:/usr/local/lib/python3.12/site-packages/nvidia/cudnn/lib
USER 1000:1000
ENV USER=gripwire
CMD ["trainer", "run"]
