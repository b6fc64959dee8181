# limner in a container: its own model inside, no network needed.
#
#   docker build -t limner .
#   docker run --rm -it -v "$PWD:/work" limner                                   # the prompt: paths in, captions out
#   docker run --rm -v "$PWD:/work" limner caption . --out captions.csv
#   docker compose up --detach                                                   # the service, see compose.yaml
#
# With CUDA (PyPI's torch for Linux brings it along):
#
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t limner:cuda .
#   docker run --rm --gpus all -v "$PWD:/work" limner:cuda caption . --out captions.csv --device cuda

ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 MPLCONFIGDIR=/tmp/matplotlib

RUN useradd --create-home --uid 10001 limner
WORKDIR /opt/limner
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m pip install --extra-index-url "${TORCH_INDEX}" -c constraints.txt '.[serve]' \
 && rm -rf build src
# an image without a model would be of no use: this step says how to make one
RUN python -c "from limner import shipped; from limner.runs.resolve import open_package; print(open_package(shipped.model()))"

# by its number, so that a cluster can tell that it is not root
USER 10001
WORKDIR /work
ENTRYPOINT ["limner"]
CMD ["caption"]
