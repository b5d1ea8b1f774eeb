# `lyrics serve` in a container, on the CPU or, with --gpus all, on a GPU of NVIDIA:
#
#   docker build -t lyrics .
#   docker run -p 8000:8000 -e LYRICS_API_KEY=... lyrics
#   docker run -p 8000:8000 -e LYRICS_API_KEY=... -v /models/mine:/model:ro lyrics --model /model
FROM python:3.11-slim

# For a smaller image without CUDA, build with --build-arg TORCH_INDEX=<the index of PyTorch's CPU builds>.
ARG TORCH_INDEX=
WORKDIR /source
COPY constraints.txt ./
RUN pip install --no-cache-dir "$(grep '^torch==' constraints.txt)" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY . .
RUN pip install --no-cache-dir '.[serve]' -c constraints.txt && rm -rf /source/*

RUN useradd --create-home lyrics
USER lyrics
WORKDIR /home/lyrics
EXPOSE 8000

# It answers without a key, and only once the model is loaded.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]

# SIGTERM lets running answers finish; give them time with `docker stop --time 120`.
ENTRYPOINT ["lyrics", "serve", "--host", "0.0.0.0", "--port", "8000"]
